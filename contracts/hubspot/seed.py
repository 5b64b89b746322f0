"""A realistic account for demonstrations, the same for the same seed.

Names are ordinary given and family names of each country put together by chance; domains are reserved ones.
"""

from __future__ import annotations

import random
import unicodedata
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from contracts.hubspot.answers import Json, iso, to_ms
from contracts.hubspot.preferences import define_subscription
from contracts.hubspot.records import PERSON

if TYPE_CHECKING:
    from contracts.hubspot.records import Record
    from contracts.hubspot.sandbox import HubSpotSandbox

PRODUCT_NEWS = 730_001
OPTED_OUT_SHARE = 0.015


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contact may live: the country's share and the names and cities found there."""

    country: str
    language: str
    prefix: str
    share: int
    given: str
    family: str
    cities: str


PLACES = (
    Place(
        *("DE", "de", "+49", 34),
        "Anna Jürgen Sören Käthe Lukas Mia Jonas Renée Björn Grete Emil Özlem",
        "Müller Schäfer Groß Weiß Vogel Brandt Köhler Yılmaz Lehmann Jäger Pohl",
        "Berlin,Köln,München,Leipzig,Lübeck",
    ),
    Place(
        *("AT", "de", "+43", 12),
        "Lena Matthäus Vroni Elias Jakob Magdalena",
        "Gruber Pichler Wölfl Moser Bäuerle",
        "Wien,Graz,Linz,Sankt Pölten",
    ),
    Place(
        *("CH", "de", "+41", 6),
        "Urs Reto Noëlle Beat Céline",
        "Zürcher Bühler Favre Rüegg",
        "Zürich,Bern,Genève",
    ),
    Place(
        *("FR", "fr", "+33", 14),
        "Chloé Théo Zoé Raphaël Anaïs Jean-Luc Maël",
        "Lefèvre Garçon d'Arcy Moreau Besançon",
        "Paris,Lyon,Nîmes,Besançon",
    ),
    Place(
        *("US", "en", "+1", 16),
        "Emily Noah José Aisha Liam Grace",
        "Johnson Núñez O'Brien Lee Washington",
        "Austin,Boston,San José,Portland",
    ),
    Place(
        *("PL", "pl", "+48", 6),
        "Łukasz Zofia Kacper Małgorzata",
        "Wójcik Kowalczyk Żak Dąbrowski",
        "Kraków,Łódź,Gdańsk",
    ),
    Place(
        *("ES", "es", "+34", 6),
        "Íñigo Lucía Begoña Martín",
        "García Muñoz Ibáñez Peña",
        "Madrid,A Coruña,Málaga",
    ),
    Place(*("SE", "sv", "+46", 3), "Åsa Göran Linnéa", "Sjöberg Åkesson Lindström", "Malmö,Göteborg"),
    Place(*("JP", "ja", "+81", 3), "陽菜 健太 さくら", "佐藤 鈴木 高橋", "東京,大阪"),
)
ROMANISED = {
    "陽菜": "hina",
    "健太": "kenta",
    "さくら": "sakura",
    "佐藤": "sato",
    "鈴木": "suzuki",
    "高橋": "takahashi",
}
COMPANIES = (
    "Nordlicht",
    "Brückenwerk",
    "Solvento",
    "Kleeblatt",
    "Quartz",
    "Hafenkontor",
    "Lumière",
    "Blueprint",
)
TITLES = (
    "Head of Marketing",
    "Developer",
    "Geschäftsführerin",
    "Buyer",
    "Office Manager",
    "CTO",
    "Directrice",
    "",
)
STAGES_OF_LIFE = (
    "subscriber",
    "lead",
    "lead",
    "marketingqualifiedlead",
    "salesqualifiedlead",
    "opportunity",
    "customer",
)
DEAL_STAGES = (
    "appointmentscheduled",
    "appointmentscheduled",
    "qualifiedtobuy",
    "contractsent",
    "closedwon",
    "closedlost",
)
WARES = ("licence", "renewal", "pilot")
OWNERS = (("501", "Ines", "Kramer"), ("502", "Tom", "Okafor"), ("503", "Marit", "Dahl"))


def seed_demo(sandbox: HubSpotSandbox, contacts: int = 2000, seed: int = 7) -> None:
    """Fill an empty sandbox: contacts, three deals to ten contacts, four lists, owners and one subscription."""
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    account = sandbox.account
    with account.lock:
        _owners(sandbox)
        define_subscription(
            account, PRODUCT_NEWS, "Product news", "News about the product, at most twice a month"
        )
        people = _contacts(sandbox, rng, contacts)
        _deals(sandbox, rng, people, contacts * 3 // 10)
        _lists(sandbox, rng, people)


def _owners(sandbox: HubSpotSandbox) -> None:
    created = iso(sandbox.account.now_ms())
    for number, (owner, first, last) in enumerate(OWNERS):
        sandbox.account.owners[owner] = {
            "id": owner,
            "email": f"{first}.{last}@example.com".lower(),
            "type": "PERSON",
            "firstName": first,
            "lastName": last,
            "userId": 9000 + number,
            "createdAt": created,
            "updatedAt": created,
            "archived": False,
            "teams": [],
        }


def _contacts(sandbox: HubSpotSandbox, rng: random.Random, count: int) -> list[Record]:
    account, now = sandbox.account, sandbox.clock.now()
    ages = sorted((rng.uniform(0.5, 500) for _ in range(count)), reverse=True)
    shares = [place.share for place in PLACES]
    people = []
    for number, age_days in enumerate(ages):
        values = _person(rng, rng.choices(PLACES, shares)[0], number)
        at_ms = to_ms(now - timedelta(days=age_days))
        if rng.random() < OPTED_OUT_SHARE:
            account.preferences.left_all[values["email"]] = at_ms
        people.append(account.create("contacts", values, PERSON, at_ms))
    return people


def _person(rng: random.Random, place: Place, number: int) -> dict[str, str]:
    first, last = rng.choice(place.given.split()), rng.choice(place.family.split())
    domain = rng.choice(("example.com", "example.org", "example.net", "mail.example.com", "post.example.org"))
    values = {
        "email": f"{_ascii(first)}.{_ascii(last)}.{number}@{domain}",
        "firstname": "" if rng.random() < 0.03 else first,
        "lastname": last,
        "country": place.country,
        "hs_language": place.language,
        "city": rng.choice(place.cities.split(",")),
        "lifecyclestage": rng.choice(STAGES_OF_LIFE),
        "hubspot_owner_id": rng.choice(OWNERS)[0],
    }
    if rng.random() < 0.7:
        values |= {
            "company": f"{rng.choice(COMPANIES)} {rng.randrange(1, 90)}",
            "jobtitle": rng.choice(TITLES),
        }
    if rng.random() < 0.5:
        values["phone"] = f"{place.prefix} 555 {rng.randrange(10**6):06d}"
    return values


def _ascii(name: str) -> str:
    plain = ROMANISED.get(name, name)
    for letter, latin in (("ß", "ss"), ("ł", "l"), ("Ł", "l"), ("ı", "i"), ("'", "")):
        plain = plain.replace(letter, latin)
    return unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode().lower()


def _deals(sandbox: HubSpotSandbox, rng: random.Random, people: list[Record], count: int) -> None:
    account, now = sandbox.account, sandbox.clock.now()
    owners = rng.sample(people, min(len(people), max(1, count * 5 // 6)))
    for number in range(count):
        stage, contact = rng.choice(DEAL_STAGES), owners[number % len(owners)]
        at = now - timedelta(days=rng.uniform(0.2, 120))
        values = {
            "dealname": f"{contact.properties.get('company') or 'New customer'}, {rng.choice(WARES)}",
            "pipeline": "default",
            "dealstage": stage,
            "amount": str(rng.randrange(2, 400) * 50),
            "deal_currency_code": "USD" if contact.properties["country"] == "US" else "EUR",
            "closedate": str(to_ms(at + timedelta(days=30))),
            "hubspot_owner_id": contact.properties["hubspot_owner_id"],
        }
        deal = account.create("deals", values, PERSON, max(to_ms(at), contact.created_ms))
        account.links.add("deals", deal.number, "contacts", contact.number, [3])


def _lists(sandbox: HubSpotSandbox, rng: random.Random, people: list[Record]) -> None:
    segments = sandbox.segments
    readers = segments.create("Newsletter readers", "MANUAL")
    segments.change(readers, [r.id for r in rng.sample(people, len(people) * 3 // 5)], [])
    segments.create(
        "German-speaking contacts",
        "DYNAMIC",
        branch=_where("hs_language", "MULTISTRING", "IS_EQUAL_TO", ["de"]),
    )
    segments.create(
        "Customers", "DYNAMIC", branch=_where("lifecyclestage", "ENUMERATION", "IS_ANY_OF", ["customer"])
    )
    segments.create(
        "Spring fair visitors",
        "SNAPSHOT",
        branch=_where("city", "MULTISTRING", "IS_EQUAL_TO", ["Leipzig", "Wien"]),
    )


def _where(name: str, type_: str, operator: str, values: list[str]) -> Json:
    operation = {
        "operationType": type_,
        "operator": operator,
        "values": values,
        "includeObjectsWithNoValueSet": False,
    }
    inner = {
        "filterBranchType": "AND",
        "filterBranchOperator": "AND",
        "filterBranches": [],
        "filters": [{"filterType": "PROPERTY", "property": name, "operation": operation}],
    }
    return {"filterBranchType": "OR", "filterBranchOperator": "OR", "filterBranches": [inner], "filters": []}
