"""What `hub init` writes: a commented hub.yaml and a first template."""

from __future__ import annotations

HUB_YAML = """\
# Mailyard's configuration. `hub check` finds every mistake in it; `hub schema` prints its JSON Schema for editors.
# Secrets are never written here: "${NAME}" is read from the environment, `<key>_file: path` from a file.

connections:
  crm:
    connector: hubspot
    token: "${HUBSPOT_TOKEN}"
    webhook_secret: "${HUBSPOT_APP_SECRET}"
    # mapping: mappings/hubspot.yaml      # extends the shipped mapping, entry by entry
  # analytics:
  #   connector: google_analytics
  #   measurement_id: G-XXXXXXXX
  #   api_secret: "${GA_SECRET}"

sync:
  crm:
    every: 5m
    pull: [contacts, deals, segments]
    push: [results, consent, fields]
  # analytics: {push: [results]}

# Why people get mail. What they opt out of is a purpose.
purposes:
  product-news:
    title: Product news
    basis: opt_out                        # opt_in: only to people with a recorded consent
    # subscriptions: {crm: "123456"}      # what the purpose is called in HubSpot: a subscription's id

# A list is a SQL condition over the fields of a contact, and is kept up to date by itself.
lists:
  trial:
    where: country = 'DE' AND has_deal(stage => 'trial')

messages:
  welcome:
    subject: "Hello {{ contact.first_name or 'there' }}"
    template: templates/welcome.mjml
    from: "Ann <ann@example.com>"
    purpose: product-news

# Whoever joins the list enters the funnel.
funnels:
  onboarding:
    enter: {list: trial}
    leave: {when: "has_deal(stage => 'won')"}
    steps:
      - send: welcome
      - wait: 3 days
      - when: NOT opened('welcome')
        then:
          - set: {crm: {lifecycle: marketingqualifiedlead}}

relays:
  main:
    host: smtp.example.com
    port: 587
    tls: starttls
    username: mailyard
    password: "${SMTP_PASSWORD}"
    limits: {per_second: 20, connections: 4}

bounces:
  return_path: bounce@example.com         # each mail's return path is bounce+TOKEN@example.com
  # maildir: /var/mail/bounces            # where your mail server delivers them

sender:
  postal_address: "Example GmbH, Example Street 1, 10115 Berlin, Germany"
  list_domain: example.com

web:
  host: 127.0.0.1
  port: 8025
  public_url: https://mail.example.com    # how the world reaches this port, through your proxy
"""

WELCOME = """\
<mjml>
  <mj-body>
    <mj-section>
      <mj-column>
        <mj-text font-size="20px">Hello {{ contact.first_name or 'there' }}</mj-text>
        <mj-text>Welcome{% if contact.company %}, {{ contact.company }}{% endif %}. Here is where to start.</mj-text>
        <mj-button href="https://www.example.com/start">Start</mj-button>
        <mj-text font-size="12px">{{ postal_address }} <a href="{{ unsubscribe_url }}">Unsubscribe</a></mj-text>
      </mj-column>
    </mj-section>
  </mj-body>
</mjml>
"""

VARIABLES = ("HUBSPOT_TOKEN", "HUBSPOT_APP_SECRET", "SMTP_PASSWORD")


def files() -> dict[str, str]:
    """relative path -> content."""
    return {"hub.yaml": HUB_YAML, "templates/welcome.mjml": WELCOME}
