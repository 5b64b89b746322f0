"""What the hub's pages for recipients say, in the languages they have."""

from __future__ import annotations

from collections.abc import Mapping

from hub.config.settings import PurposeSection

WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "unsubscribe": "Unsubscribe", "unsubscribe_ask": "Do you want to receive no more of these mails?",
        "unsubscribed": "You are unsubscribed", "unsubscribed_help": "You will get no more of these mails.",
        "more": "Choose which mails you get",
        "preferences": "Your mails", "address": "For the address {address}.", "choose": "Choose what you want to get.",
        "save": "Save", "saved": "Your choice is saved.", "unchanged": "Nothing was changed.",
        "nothing": "No more mails at all", "nothing_help": "Ends all of the above at once.",
        "none_left": "You will get no more mails from us.", "confirm_sent":
        "We have sent you a mail. Please use its link to confirm what you chose anew.",
        "suppressed": "We send nothing to this address at all: mails to it came back, or somebody asked us not to.",
        "gone": "We hold nothing about this address any more", "gone_help": "There is nothing that you could change here.",
        "damaged": "This link is damaged", "damaged_help": "Please use the link in the mail again.",
        "preview": "This is a preview", "preview_help": "Its links do nothing: nobody is unsubscribed by them.",
        "subscribe": "Get our mails", "email": "E-mail address", "send": "Send", "bad_address":
        "This is no e-mail address. Please write it like ann@example.com.",
        "asked": "Please look into your mailbox", "asked_help":
        "If a mail to this address is due, it is on its way. Please use its link to confirm.",
        "confirm": "Do you want to get these mails?", "confirm_button": "Yes, I want to",
        "confirmed": "Thank you", "confirmed_help": "You will get: {title}",
        "before_help": "You have confirmed it before. There is nothing left to do.",
        "expired": "This link is too old", "expired_help": "Nothing was changed. Please ask for a new mail.",
        "trap": "Nothing to see here", "trap_help": "This link leads nowhere.",
        "no_form": "There is no such form", "no_form_help": "Please check the address of the page.",
    },
    "de": {
        "unsubscribe": "Abmelden", "unsubscribe_ask": "Möchten Sie diese E-Mails nicht mehr bekommen?",
        "unsubscribed": "Sie sind abgemeldet", "unsubscribed_help": "Sie bekommen diese E-Mails nicht mehr.",
        "more": "Auswählen, welche E-Mails Sie bekommen",
        "preferences": "Ihre E-Mails", "address": "Für die Adresse {address}.", "choose": "Wählen Sie, was Sie bekommen möchten.",
        "save": "Speichern", "saved": "Ihre Auswahl ist gespeichert.", "unchanged": "Es wurde nichts geändert.",
        "nothing": "Gar keine E-Mails mehr", "nothing_help": "Beendet alles oben Genannte auf einmal.",
        "none_left": "Sie bekommen von uns keine E-Mails mehr.", "confirm_sent":
        "Wir haben Ihnen eine E-Mail geschickt. Bitte bestätigen Sie mit dem Link darin, was Sie neu gewählt haben.",
        "suppressed": "An diese Adresse senden wir nichts: E-Mails kamen zurück, oder wir wurden darum gebeten.",
        "gone": "Wir haben zu dieser Adresse nichts mehr gespeichert", "gone_help": "Hier gibt es nichts zu ändern.",
        "damaged": "Dieser Link ist beschädigt", "damaged_help": "Bitte verwenden Sie den Link in der E-Mail noch einmal.",
        "preview": "Dies ist eine Vorschau", "preview_help": "Ihre Links bewirken nichts.",
        "subscribe": "Unsere E-Mails bekommen", "email": "E-Mail-Adresse", "send": "Absenden", "bad_address":
        "Das ist keine E-Mail-Adresse. Bitte schreiben Sie sie wie anna@example.com.",
        "asked": "Bitte sehen Sie in Ihr Postfach", "asked_help":
        "Falls eine E-Mail an diese Adresse fällig ist, ist sie unterwegs. Bitte bestätigen Sie mit dem Link darin.",
        "confirm": "Möchten Sie diese E-Mails bekommen?", "confirm_button": "Ja, das möchte ich",
        "confirmed": "Danke", "confirmed_help": "Sie bekommen: {title}",
        "before_help": "Sie haben es schon bestätigt. Es ist nichts mehr zu tun.",
        "expired": "Dieser Link ist zu alt", "expired_help": "Es wurde nichts geändert. Bitte fordern Sie eine neue E-Mail an.",
        "trap": "Hier gibt es nichts zu sehen", "trap_help": "Dieser Link führt nirgendwohin.",
        "no_form": "Dieses Formular gibt es nicht", "no_form_help": "Bitte prüfen Sie die Adresse der Seite.",
    },
    "fr": {
        "unsubscribe": "Se désabonner", "unsubscribe_ask": "Ne voulez-vous plus recevoir ces e-mails ?",
        "unsubscribed": "Vous êtes désabonné", "unsubscribed_help": "Vous ne recevrez plus ces e-mails.",
        "more": "Choisir les e-mails que vous recevez",
        "preferences": "Vos e-mails", "address": "Pour l'adresse {address}.", "choose": "Choisissez ce que vous voulez recevoir.",
        "save": "Enregistrer", "saved": "Votre choix est enregistré.", "unchanged": "Rien n'a été changé.",
        "nothing": "Plus aucun e-mail", "nothing_help": "Met fin à tout ce qui précède.",
        "none_left": "Vous ne recevrez plus d'e-mails de notre part.", "confirm_sent":
        "Nous vous avons envoyé un e-mail. Utilisez son lien pour confirmer vos nouveaux choix.",
        "suppressed": "Nous n'envoyons rien à cette adresse : des e-mails sont revenus, ou on nous l'a demandé.",
        "gone": "Nous n'avons plus rien sur cette adresse", "gone_help": "Il n'y a rien à changer ici.",
        "damaged": "Ce lien est endommagé", "damaged_help": "Utilisez de nouveau le lien de l'e-mail.",
        "preview": "Ceci est un aperçu", "preview_help": "Ses liens ne font rien.",
        "subscribe": "Recevoir nos e-mails", "email": "Adresse e-mail", "send": "Envoyer", "bad_address":
        "Ce n'est pas une adresse e-mail. Écrivez-la comme anne@example.com.",
        "asked": "Regardez votre boîte aux lettres", "asked_help":
        "Si un e-mail à cette adresse est prévu, il est en route. Utilisez son lien pour confirmer.",
        "confirm": "Voulez-vous recevoir ces e-mails ?", "confirm_button": "Oui, je le veux",
        "confirmed": "Merci", "confirmed_help": "Vous recevrez : {title}",
        "before_help": "Vous l'avez déjà confirmé. Il n'y a plus rien à faire.",
        "expired": "Ce lien est trop ancien", "expired_help": "Rien n'a été changé. Demandez un nouvel e-mail.",
        "trap": "Il n'y a rien à voir ici", "trap_help": "Ce lien ne mène nulle part.",
        "no_form": "Ce formulaire n'existe pas", "no_form_help": "Vérifiez l'adresse de la page.",
    },
}  # fmt: skip
DEFAULT = "en"


def language_of(person: str | None, accepted: str) -> str:
    """The language of a page: the contact's where we have it, else the first that the browser accepts and we have."""
    wanted = [person or "", *(each.partition(";")[0] for each in accepted.split(","))]
    for tag in wanted:
        base = tag.strip().lower().partition("-")[0]
        if base in WORDS:
            return base
    return DEFAULT


def title_of(section: PurposeSection, language: str) -> str:
    """What a purpose is called in a language."""
    return next(
        (title for tag, title in section.titles.items() if tag.lower().partition("-")[0] == language),
        section.title,
    )
