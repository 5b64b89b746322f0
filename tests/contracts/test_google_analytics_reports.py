"""The Data API's stand-in, driven by Google's own client; every answer is held against the contract meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from google.analytics.data_v1beta import types as ga
from google.api_core import exceptions
from google.auth.exceptions import RefreshError

from tests.contracts.conftest import Serve
from tests.contracts.google_analytics_case import PROPERTY, Case, event, google_case

EVERYTHING = ga.DateRange(start_date="30daysAgo", end_date="today")


@pytest.fixture
def case(serve_recorded: Serve) -> Iterator[Case]:
    with google_case(serve_recorded) as opened:
        yield opened


def report(case: Case, *dimensions: str, metrics: tuple[str, ...] = ("eventCount",), **rest: Any) -> Any:
    request = ga.RunReportRequest(
        property=PROPERTY,
        dimensions=[ga.Dimension(name=name) for name in dimensions],
        metrics=[ga.Metric(name=name) for name in metrics],
        **{"date_ranges": [EVERYTHING], **rest},
    )
    return case.client().run_report(request)


def realtime(case: Case, *dimensions: str, token: str = "sandbox-access-token", **rest: Any) -> Any:
    request = ga.RunRealtimeReportRequest(
        **{
            "property": PROPERTY,
            "dimensions": [ga.Dimension(name=name) for name in dimensions],
            "metrics": [ga.Metric(name="eventCount")],
            **rest,
        }
    )
    return case.client(token).run_realtime_report(request)


def rows(answer: Any) -> list[tuple[str, ...]]:
    return [tuple(v.value for v in [*row.dimension_values, *row.metric_values]) for row in answer.rows]


def test_events_are_counted_by_name_and_registered_parameter(case: Case) -> None:
    case.collect(event(message="welcome"), event(message="digest"), event("email_open", message="welcome"))
    case.collect(event(message="welcome"), client="2.2")
    assert rows(report(case, "eventName")) == [("email_sent", "3"), ("email_open", "1")]
    by_message = report(case, "eventName", "customEvent:message", metrics=("eventCount", "totalUsers"))
    assert rows(by_message) == [
        ("email_sent", "welcome", "2", "2"),
        ("email_sent", "digest", "1", "1"),
        ("email_open", "welcome", "1", "1"),
    ]
    assert [h.name for h in by_message.metric_headers] == ["eventCount", "totalUsers"]
    assert by_message.row_count == 3


def test_an_empty_report_has_no_rows(case: Case) -> None:
    answer = report(case, "eventName")
    assert list(answer.rows) == []
    assert answer.row_count == 0


def test_pages_are_stable_when_ordered(case: Case) -> None:
    for n in range(7):
        case.collect(event(event_id=f"r{n}"))
    by_id = ga.OrderBy(
        dimension=ga.OrderBy.DimensionOrderBy(dimension_name="customEvent:event_id"), desc=True
    )
    pages = [
        report(case, "customEvent:event_id", order_bys=[by_id], limit=3, offset=offset)
        for offset in (0, 3, 6)
    ]
    assert [p.row_count for p in pages] == [7, 7, 7]
    assert [r[0] for p in pages for r in rows(p)] == [f"r{n}" for n in range(6, -1, -1)]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (ga.OrderBy.DimensionOrderBy.OrderType.ALPHANUMERIC, ["10", "9", "B", "a"]),
        (ga.OrderBy.DimensionOrderBy.OrderType.CASE_INSENSITIVE_ALPHANUMERIC, ["10", "9", "a", "B"]),
        (ga.OrderBy.DimensionOrderBy.OrderType.NUMERIC, ["a", "B", "9", "10"]),
    ],
)
def test_orders(case: Case, order: Any, expected: list[str]) -> None:
    case.collect(*[event(relay=name) for name in ("a", "9", "B", "10")])
    wish = ga.OrderBy.DimensionOrderBy(dimension_name="customEvent:relay", order_type=order)
    assert [
        r[0] for r in rows(report(case, "customEvent:relay", order_bys=[ga.OrderBy(dimension=wish)]))
    ] == expected


def text_filter(name: str, value: str, kind: Any) -> ga.FilterExpression:
    return ga.FilterExpression(
        filter=ga.Filter(field_name=name, string_filter=ga.Filter.StringFilter(value=value, match_type=kind))
    )


def test_filters(case: Case) -> None:
    kinds = ga.Filter.StringFilter.MatchType
    case.collect(event("email_sent"), event("email_open"), event("email_click"), event("purchase_made"))
    mail = text_filter("eventName", "EMAIL_", kinds.BEGINS_WITH)
    among = ga.Filter.InListFilter(values=["email_open", "email_sent"])
    some = ga.FilterExpression(filter=ga.Filter(field_name="eventName", in_list_filter=among))
    both = ga.FilterExpression(
        and_group=ga.FilterExpressionList(expressions=[mail, ga.FilterExpression(not_expression=some)])
    )
    names = lambda wish: {r[0] for r in rows(report(case, "eventName", dimension_filter=wish))}  # noqa: E731
    assert names(mail) == {"email_sent", "email_open", "email_click"}
    assert names(some) == {"email_sent", "email_open"}
    assert names(both) == {"email_click"}


def test_a_parameter_registered_late_has_no_past(case: Case) -> None:
    case.collect(event(funnel="onboarding"))
    with pytest.raises(exceptions.BadRequest, match="Field customEvent:funnel is not a valid dimension"):
        report(case, "customEvent:funnel")
    case.clock.advance(minutes=1)
    case.sandbox.register("funnel")
    case.collect(event(funnel="onboarding"))
    assert sorted(rows(report(case, "customEvent:funnel"))) == [("(not set)", "1"), ("onboarding", "1")]


def test_days_and_several_ranges(case: Case) -> None:
    case.collect(event())
    case.clock.advance(days=2)
    case.collect(event(), event())
    assert sorted(rows(report(case, "date"))) == [("20261124", "1"), ("20261126", "2")]
    past = ga.DateRange(start_date="2026-11-24", end_date="yesterday", name="past")
    now = ga.DateRange(start_date="today", end_date="today", name="now")
    assert sorted(rows(report(case, "eventName", date_ranges=[past, now]))) == [
        ("email_sent", "now", "2"),
        ("email_sent", "past", "1"),
    ]


def test_without_engagement_only_realtime_shows_it(case: Case) -> None:
    case.collect({"name": "email_sent", "params": {"message": "welcome"}})
    assert rows(realtime(case, "eventName")) == [("email_sent", "1")]
    assert rows(report(case, "eventName")) == []


def test_reports_lag_when_told_to(serve_recorded: Serve) -> None:
    with google_case(serve_recorded, processing_hours=24) as case:
        case.collect(event())
        case.clock.advance(hours=23)
        assert rows(report(case, "eventName")) == []
        case.clock.advance(hours=1)
        assert rows(report(case, "eventName")) == [("email_sent", "1")]


def test_realtime_forgets_after_30_minutes(case: Case) -> None:
    case.collect(event())
    case.clock.advance(minutes=29, seconds=59)
    assert rows(realtime(case, "eventName")) == [("email_sent", "1")]
    recent = ga.MinuteRange(start_minutes_ago=28, end_minutes_ago=0)
    assert rows(realtime(case, "eventName", minute_ranges=[recent])) == []
    case.clock.advance(seconds=1)
    assert rows(realtime(case, "eventName")) == []


def test_realtime_knows_user_dimensions_only(serve_recorded: Serve) -> None:
    with google_case(serve_recorded, user_dimensions=["plan"]) as case:
        case.collect(event(message="welcome"), user_properties={"plan": {"value": "pro"}})
        assert rows(realtime(case, "customUser:plan")) == [("pro", "1")]
        with pytest.raises(exceptions.BadRequest, match="customEvent:message is not a valid dimension"):
            realtime(case, "customEvent:message")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"metrics": []}, "at least one metric"),
    ({"metrics": [ga.Metric(name="sessionz")]}, "Field sessionz is not a valid metric"),
    ({"date_ranges": []}, "date range"),
    ({"date_ranges": [ga.DateRange(start_date="today", end_date="yesterday")]}, "is after the end date"),
    ({"date_ranges": [ga.DateRange(start_date="24.11.2026", end_date="today")]}, "Invalid date"),
    ({"limit": -1}, "must not be negative"),
    ({"dimensions": [ga.Dimension(name="date")] * 10}, "limited to 9 dimensions"),
]


@pytest.mark.parametrize(("wish", "expected"), BAD)
def test_bad_questions_are_refused_by_name(case: Case, wish: dict[str, Any], expected: str) -> None:
    usual = {"metrics": [ga.Metric(name="eventCount")], "date_ranges": [EVERYTHING]}
    with pytest.raises(exceptions.BadRequest, match=expected):
        case.client().run_report(ga.RunReportRequest(property=PROPERTY, **{**usual, **wish}))


def test_a_wrong_token_is_unauthenticated(case: Case) -> None:
    with pytest.raises(
        RefreshError
    ):  # what Google's client makes of a 401: it has nothing to renew the token with
        realtime(case, "eventName", token="other")
    with pytest.raises(HTTPError) as answer:
        urlopen(Request(f"{case.url}/v1beta/{PROPERTY}:runReport", b"{}"), timeout=10)
    assert answer.value.code == 401
    assert json.load(answer.value)["error"]["status"] == "UNAUTHENTICATED"


def test_another_property_is_forbidden(case: Case) -> None:
    with pytest.raises(exceptions.Forbidden, match="does not have sufficient permissions for this property"):
        realtime(case, "eventName", property="properties/999")


def test_the_right_to_edit_alone_reads_nothing(serve_recorded: Serve) -> None:
    with (
        google_case(serve_recorded, scope="analytics.edit") as case,
        pytest.raises(exceptions.Forbidden) as error,
    ):
        realtime(case, "eventName")
    assert error.value.reason == "ACCESS_TOKEN_SCOPE_INSUFFICIENT"


def test_tokens_run_out_by_the_hour_and_come_back(case: Case) -> None:
    quota = report(case, "eventName", return_property_quota=True).property_quota
    assert quota.tokens_per_hour.remaining == 40_000 - quota.tokens_per_hour.consumed
    case.sandbox.spend(40_000)
    with pytest.raises(exceptions.TooManyRequests, match="Exhausted property tokens for a project per hour"):
        report(case, "eventName")
    case.clock.advance(hours=1)
    report(case, "eventName")
    case.sandbox.spend(200_000)
    case.clock.advance(hours=2)
    with pytest.raises(exceptions.TooManyRequests, match="Exhausted property tokens per day"):
        report(case, "eventName")
