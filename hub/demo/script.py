"""The play of a rehearsal: its hub.yaml, its mails, its secrets."""

from __future__ import annotations

from pathlib import Path

TOKEN = "pat-na1-sandbox"  # noqa: S105  # the sandbox's own, worth nothing elsewhere
WEBHOOK_SECRET = "sandbox-client-secret"  # noqa: S105
ANALYTICS_SECRET = "sandbox-api-secret"  # noqa: S105
ANALYTICS_TOKEN = "sandbox-access-token"  # noqa: S105
MEASUREMENT_ID = "G-SANDBOX01"
PROPERTY_ID = "123456"

HUB_YAML = """\
# The rehearsal's configuration: a HubSpot account and Google Analytics (both sandboxes) and an SMTP relay on loopback.
connections:
  crm:
    connector: hubspot
    base_url: {hubspot_url}
    token: "${{HUBSPOT_TOKEN}}"
    webhook_secret: "${{HUBSPOT_APP_SECRET}}"
  analytics:
    connector: google_analytics
    base_url: {analytics_url}
    measurement_id: {measurement_id}
    api_secret: "${{GA_SECRET}}"

sync:
  crm: {{every: 5m, pull: [contacts, deals, segments], push: [results, consent, fields]}}
  analytics: {{push: [results]}}

purposes:
  product-news:
    title: Product news
    subscriptions: {{crm: "{subscription}"}}

lists:
  trial:
    description: People with an open trial in German-speaking countries
    where: country IN ('DE', 'AT', 'CH') AND has_deal(stage => 'trial')
  readers:
    description: Readers of the newsletter who are not in a trial
    where: in_segment('Newsletter readers') AND NOT in_list('trial')

messages:
  welcome:
    subject: "Hello {{{{ contact.first_name or 'there' }}}}, your trial has begun"
    template: templates/welcome.mjml
    from: "Ann at Mailyard <ann@mailyard.example>"
    purpose: product-news
    preheader: Three things to try in your first week
  reminder:
    subject: "{{{{ contact.first_name or 'Hello' }}}}, may we show you around?"
    template: templates/reminder.mjml
    from: "Ann at Mailyard <ann@mailyard.example>"
    purpose: product-news
  digest:
    subject: "What is new for {{{{ contact.company or 'you' }}}}"
    template: templates/digest.mjml
    from: "Ann at Mailyard <ann@mailyard.example>"
    purpose: product-news

funnels:
  onboarding:
    enter: {{list: trial}}
    leave: {{when: "has_deal(stage => 'won')"}}
    steps:
      - send: welcome
      - wait: 3 days
      - when: NOT opened('welcome')
        then: [{{send: reminder}}]
        else: [{{set: {{crm: {{lifecycle: marketingqualifiedlead}}}}}}]
  newsletter:
    enter: {{list: readers}}
    steps:
      - send: digest
      - wait: 3 days
      - when: NOT opened('digest')
        then: [{{send: reminder}}]

campaigns:
  spring: {{list: readers, message: digest, at: "2030-03-20 09:00", time_zone: Europe/Vienna, speed: 1000 per hour}}

relays:
  main:
    host: {smtp_host}
    port: {smtp_port}
    tls: starttls
    ca_file: {ca_file}
    limits: {{connections: 4}}

tracking:
  machines: {{soon: 0s}}  # the rehearsal's readers read at once

bounces:
  return_path: bounce@mailyard.example
  maildir: {maildir}

sender:
  postal_address: Mailyard, 1 Example Street, 1010 Vienna, Austria
  list_domain: mailyard.example

web:
  host: 127.0.0.1
  port: {web_port}
  public_url: {web_url}
"""

_FRAME = """\
<mjml>
  <mj-body background-color="#f4f5f7">
    <mj-section background-color="#ffffff">
      <mj-column>
        <mj-text font-size="20px">{title}</mj-text>
        <mj-text>{text}</mj-text>
        <mj-button href="https://www.mailyard.example/{page}">{button}</mj-button>
        <mj-text font-size="12px"><a href="{{{{ unsubscribe_url }}}}">Unsubscribe</a></mj-text>
      </mj-column>
    </mj-section>
  </mj-body>
</mjml>
"""
TEMPLATES = {
    "welcome": _FRAME.format(
        title="Hello {{ contact.first_name or 'there' }}",
        text="Your trial{% if contact.company %} for {{ contact.company }}{% endif %} has begun. Here is where to start.",
        page="first-steps", button="Start",
    ),
    "reminder": _FRAME.format(
        title="{{ contact.first_name or 'Hello' }}, may we show you around?",
        text="You have not had time yet. It takes five minutes.",
        page="tour", button="Take the tour",
    ),
    "digest": _FRAME.format(
        title="What is new",
        text="Three things that people{% if contact.city %} in {{ contact.city }}{% endif %} asked us for are ready.",
        page="news", button="Read on",
    ),
}  # fmt: skip


def secrets() -> dict[str, str]:
    """The environment variables that hub.yaml refers to."""
    return {"HUBSPOT_TOKEN": TOKEN, "HUBSPOT_APP_SECRET": WEBHOOK_SECRET, "GA_SECRET": ANALYTICS_SECRET}


def write(
    folder: Path,
    *,
    hubspot_url: str,
    analytics_url: str,
    smtp: str,
    ca_file: str,
    web_url: str,
    maildir: Path,
) -> None:
    """Write hub.yaml and the templates into the rehearsal's folder."""
    host, port = smtp.rsplit(":", 1)
    (folder / "hub.yaml").write_text(
        HUB_YAML.format(
            hubspot_url=hubspot_url, analytics_url=analytics_url, measurement_id=MEASUREMENT_ID, smtp_host=host, smtp_port=port,
            ca_file=ca_file, maildir=maildir, web_url=web_url, web_port=web_url.rsplit(":", 1)[1], subscription="730001",
        )
    )  # fmt: skip
    (folder / "templates").mkdir(exist_ok=True)
    for name, source in TEMPLATES.items():
        (folder / "templates" / f"{name}.mjml").write_text(source)
