"""Default texts of a test's pages, in the languages of the listening page."""

from __future__ import annotations

from typing import Any, TypedDict

from mushra.config.pages import Language


class Texts(TypedDict):
    """Texts of one language; those of a page are HTML."""

    title: str
    consent_name: str
    thanks: str
    consent: str
    volume_name: str
    volume: str
    training_name: str
    training: str
    training_answers: str
    finish_name: str
    finish: str
    finish_unasked: str
    goodbye: str
    age: str
    experience: str
    experience_answers: list[str]
    headphones: str
    remarks: str


TEXTS: dict[Language, Texts] = {
    "en": {
        "title": "Listening test",
        "consent_name": "Welcome",
        "thanks": "Thank you for taking part in this listening test.",
        "consent": (
            "<p>Please use headphones in a quiet place. Your grades, the times you took, your comments and"
            " your answers are stored under a random number, without your name, and are used for research."
            " You may stop at any time.</p>"
        ),
        "volume_name": "Volume",
        "volume": "<p>Play the sound and set a comfortable volume.</p>",
        "training_name": "Training",
        "training": (
            "<p>Get used to the recordings and to the controls. The grades of this page do not count.</p>"
        ),
        "training_answers": (
            "<p>Get used to the recordings and to the controls. Your answers on this page do not count.</p>"
        ),
        "finish_name": "Thank you",
        "finish": "<p>You have reached the end. Please answer the questions and send your results.</p>",
        "finish_unasked": "<p>You have reached the end. Please send your results.</p>",
        "goodbye": "Your results have arrived. Thank you for taking part!",
        "age": "How old are you?",
        "experience": "How many listening tests have you taken part in before?",
        "experience_answers": ["none", "1 to 3", "4 or more"],
        "headphones": "Which headphones or loudspeakers did you use?",
        "remarks": "Is there anything you would like to tell us?",
    },
    "de": {
        "title": "Hörtest",
        "consent_name": "Willkommen",
        "thanks": "Vielen Dank, dass Sie an diesem Hörtest teilnehmen.",
        "consent": (
            "<p>Bitte benutzen Sie Kopfhörer an einem ruhigen Ort. Ihre Bewertungen, die benötigten Zeiten,"
            " Ihre Kommentare und Antworten werden unter einer zufälligen Nummer ohne Ihren Namen gespeichert"
            " und für die Forschung verwendet. Sie können jederzeit aufhören.</p>"
        ),
        "volume_name": "Lautstärke",
        "volume": "<p>Spielen Sie den Klang ab und stellen Sie eine angenehme Lautstärke ein.</p>",
        "training_name": "Übung",
        "training": (
            "<p>Machen Sie sich mit den Aufnahmen und der Bedienung vertraut. Die Bewertungen dieser Seite"
            " zählen nicht.</p>"
        ),
        "training_answers": (
            "<p>Machen Sie sich mit den Aufnahmen und der Bedienung vertraut. Ihre Antworten auf dieser Seite"
            " zählen nicht.</p>"
        ),
        "finish_name": "Vielen Dank",
        "finish": (
            "<p>Sie sind am Ende angekommen. Bitte beantworten Sie die Fragen und senden Sie Ihre Ergebnisse"
            " ab.</p>"
        ),
        "finish_unasked": "<p>Sie sind am Ende angekommen. Bitte senden Sie Ihre Ergebnisse ab.</p>",
        "goodbye": "Ihre Ergebnisse sind angekommen. Vielen Dank für Ihre Teilnahme!",
        "age": "Wie alt sind Sie?",
        "experience": "An wie vielen Hörtests haben Sie schon teilgenommen?",
        "experience_answers": ["an keinem", "1 bis 3", "4 oder mehr"],
        "headphones": "Welche Kopfhörer oder Lautsprecher haben Sie benutzt?",
        "remarks": "Möchten Sie uns noch etwas mitteilen?",
    },
    "fr": {
        "title": "Test d’écoute",
        "consent_name": "Bienvenue",
        "thanks": "Merci de participer à ce test d’écoute.",
        "consent": (
            "<p>Veuillez utiliser un casque dans un endroit calme. Vos notes, les temps de réponse, vos"
            " commentaires et vos réponses sont enregistrés sous un numéro aléatoire, sans votre nom, et"
            " servent à la recherche. Vous pouvez arrêter à tout moment.</p>"
        ),
        "volume_name": "Volume",
        "volume": "<p>Écoutez le son et réglez un volume agréable.</p>",
        "training_name": "Entraînement",
        "training": (
            "<p>Familiarisez-vous avec les enregistrements et les commandes. Les notes de cette page ne"
            " comptent pas.</p>"
        ),
        "training_answers": (
            "<p>Familiarisez-vous avec les enregistrements et les commandes. Vos réponses sur cette page ne"
            " comptent pas.</p>"
        ),
        "finish_name": "Merci",
        "finish": (
            "<p>Vous êtes arrivé à la fin. Veuillez répondre aux questions et envoyer vos résultats.</p>"
        ),
        "finish_unasked": "<p>Vous êtes arrivé à la fin. Veuillez envoyer vos résultats.</p>",
        "goodbye": "Vos résultats sont arrivés. Merci de votre participation !",
        "age": "Quel âge avez-vous ?",
        "experience": "À combien de tests d’écoute avez-vous déjà participé ?",
        "experience_answers": ["aucun", "1 à 3", "4 ou plus"],
        "headphones": "Quel casque ou quelles enceintes avez-vous utilisés ?",
        "remarks": "Souhaitez-vous nous dire autre chose ?",
    },
    "es": {
        "title": "Prueba de escucha",
        "consent_name": "Bienvenida",
        "thanks": "Gracias por participar en esta prueba de escucha.",
        "consent": (
            "<p>Utilice auriculares en un lugar tranquilo. Sus calificaciones, los tiempos empleados, sus"
            " comentarios y respuestas se guardan bajo un número aleatorio, sin su nombre, y se utilizan para"
            " la investigación. Puede dejar la prueba en cualquier momento.</p>"
        ),
        "volume_name": "Volumen",
        "volume": "<p>Reproduzca el sonido y ajuste un volumen agradable.</p>",
        "training_name": "Entrenamiento",
        "training": (
            "<p>Familiarícese con las grabaciones y los controles. Las calificaciones de esta página no"
            " cuentan.</p>"
        ),
        "training_answers": (
            "<p>Familiarícese con las grabaciones y los controles. Sus respuestas de esta página no"
            " cuentan.</p>"
        ),
        "finish_name": "Gracias",
        "finish": "<p>Ha llegado al final. Responda a las preguntas y envíe sus resultados.</p>",
        "finish_unasked": "<p>Ha llegado al final. Envíe sus resultados.</p>",
        "goodbye": "Sus resultados han llegado. ¡Gracias por participar!",
        "age": "¿Qué edad tiene?",
        "experience": "¿En cuántas pruebas de escucha ha participado antes?",
        "experience_answers": ["ninguna", "de 1 a 3", "4 o más"],
        "headphones": "¿Qué auriculares o altavoces ha utilizado?",
        "remarks": "¿Desea decirnos algo más?",
    },
}


def questions(language: Language) -> list[dict[str, Any]]:
    """The questions of `mushra create`, as a finish page's ``questionnaire`` has them."""
    texts = TEXTS[language]
    answers = enumerate(texts["experience_answers"])
    return [
        {"type": "number", "name": "age", "label": texts["age"], "optional": True, "min": 1, "max": 120},
        {
            "type": "likert",
            "name": "experience",
            "label": texts["experience"],
            "response": [{"value": str(value), "label": label} for value, label in answers],
        },
        {"type": "text", "name": "headphones", "label": texts["headphones"], "optional": True},
        {"type": "long_text", "name": "remarks", "label": texts["remarks"], "optional": True},
    ]
