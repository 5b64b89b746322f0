"""The conformance suite: what a connector promises, tried out, and the grade that follows.

An author writes a case and gets one test a check:

    from hub.sdk.conformance import ConnectorCase, suite_for

    class AcmeCase(ConnectorCase):
        connector = Acme

        def __init__(self):
            super().__init__()
            self.sandbox = AcmeSandbox(clock=self.clock)    # a hub.sdk.sandbox.Sandbox, seeded

        def settings(self):
            return {"base_url": self.sandbox.url, "token": self.sandbox.token}

        def seeded(self, stream):
            return self.sandbox.ids(stream)
        ...                                                 # change, remove, pushes, bad_pushes, written, sign

    TestAcme = suite_for(AcmeCase, "gold")

A mail relay has a smaller suite: `RelayCase`. `report(AcmeCase)` gives check -> what was found, without pytest, and
so does `python -m hub.sdk.conformance acme_case:AcmeCase --grade gold`.

The grade is computed from the checks that ran; nobody claims it.

- bronze: it does what its manifest says. Everything is read once, a pull resumes wherever it ended, each push gets
  its own outcome and a refusal says what to do, forged webhooks are refused, and no secret, no address and no
  stranger's host appears anywhere.
- silver: it bears its vendor. Through rate limits, errors, damaged and lost answers and expired tokens nothing is
  lost and nothing done twice; changes and removals are told; a repeated event is known again; an admin who tests
  the connection hears what is wrong.
- gold: it bears a vendor that changes meanwhile: records that move between pages, many sessions at once; and there
  is no check left that its case gives nothing for.

A check that has nothing to hold (no webhooks, no webhook checks) is `not applicable` and stands in no grade's way.
One that the case gives nothing for is `skipped`, and does.
"""

from hub.sdk.conformance.case import ConnectorCase, ListeningCase
from hub.sdk.conformance.relaying import RelayCase
from hub.sdk.conformance.suite import checks_for, report, run, suite_for
from hub.sdk.conformance.verdict import Check, Grade, NotApplicable, NotGiven, Report, Verdict

__all__ = [
    "Check",
    "ConnectorCase",
    "Grade",
    "ListeningCase",
    "NotApplicable",
    "NotGiven",
    "RelayCase",
    "Report",
    "Verdict",
    "checks_for",
    "report",
    "run",
    "suite_for",
]
