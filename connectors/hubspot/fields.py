"""What is known of HubSpot's objects without asking: the standard properties that mappings may name.

Source: HubSpot developer docs, "Properties" (default contact, company and deal properties). Custom properties are the
account's own: a mapping marks them `custom: true`, and `hub connections test` asks the live schema.
"""

from __future__ import annotations

from hub.model import FieldType, VendorField

T, N, B, D, E = FieldType.TEXT, FieldType.NUMBER, FieldType.BOOLEAN, FieldType.TIME, FieldType.ENUM


def _fields(kind: FieldType, names: str, *, read_only: bool = False) -> dict[str, VendorField]:
    return {name: VendorField(name=name, type=kind, read_only=read_only) for name in names.split()}


CONTACT = {
    **_fields(T, "email firstname lastname company jobtitle phone mobilephone fax website address city state zip country "
                 "hs_timezone industry salutation degree field_of_study school message hs_additional_emails twitterhandle"),
    **_fields(E, "lifecyclestage hs_lead_status hs_language hubspot_owner_id hs_persona hs_buying_role"),
    **_fields(D, "createdate lastmodifieddate notes_last_contacted notes_last_updated closedate hs_email_last_send_date "
                 "hs_email_last_open_date hs_email_last_click_date", read_only=True),
    **_fields(B, "hs_email_optout hs_is_unworked hs_email_bad_address hs_email_quarantined", read_only=True),
    **_fields(N, "hubspotscore num_associated_deals hs_email_open hs_email_click hs_email_delivered hs_email_bounce",
              read_only=True),
    **_fields(T, "hs_object_id hs_merged_object_ids hs_calculated_merged_vids associatedcompanyid hs_email_domain",
              read_only=True),
    **_fields(N, "annualrevenue numemployees"),
}  # fmt: skip
COMPANY = {
    **_fields(T, "name domain website phone address address2 city state zip country timezone description about_us founded_year "
                 "linkedin_company_page hs_additional_domains"),
    **_fields(E, "industry lifecyclestage hs_lead_status type hubspot_owner_id"),
    **_fields(N, "numberofemployees annualrevenue"),
    **_fields(B, "is_public"),
    **_fields(D, "createdate hs_lastmodifieddate notes_last_contacted notes_last_updated closedate", read_only=True),
    **_fields(N, "num_associated_contacts num_associated_deals", read_only=True),
    **_fields(T, "hs_object_id hs_merged_object_ids", read_only=True),
}  # fmt: skip
DEAL = {
    **_fields(T, "dealname description closed_lost_reason closed_won_reason"),
    **_fields(E, "dealstage pipeline dealtype hubspot_owner_id hs_priority deal_currency_code"),
    **_fields(N, "amount hs_deal_stage_probability"),
    **_fields(N, "amount_in_home_currency hs_acv hs_arr hs_mrr hs_tcv num_associated_contacts days_to_close", read_only=True),
    **_fields(D, "closedate"),
    **_fields(D, "createdate hs_lastmodifieddate", read_only=True),
    **_fields(B, "hs_is_closed hs_is_closed_won", read_only=True),
    **_fields(T, "hs_object_id hs_merged_object_ids", read_only=True),
    # Put in by the connector: the words that people see for the internal ids in `dealstage` and `pipeline`.
    **_fields(T, "stage_label pipeline_label", read_only=True),
}  # fmt: skip
KNOWN = {"contact": CONTACT, "company": COMPANY, "deal": DEAL}
CONNECTOR_MADE = frozenset({"stage_label", "pipeline_label"})
