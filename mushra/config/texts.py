"""What a test's pages say by themselves, in the languages of the listening page."""

from __future__ import annotations

from typing import Any, TypedDict

from mushra.config.pages import Language


class Texts(TypedDict):
    """Texts of one language; those of a page are HTML."""

    title: str
    consent_name: str
    consent: str
    volume_name: str
    volume: str
    training_name: str
    training: str
    trial_name: str
    trial: str
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
        "consent": (
            "<p>Thank you for taking part in this listening test. You will compare versions of short"
            " recordings with a reference and grade how good they are on a scale from 0 (bad) to 100"
            " (excellent).</p>"
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
        "trial_name": "Grade the recordings",
        "trial": (
            "<p>Grade the quality of each version against the reference. One of them is the reference"
            " itself.</p>"
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
        "consent": (
            "<p>Vielen Dank, dass Sie an diesem Hörtest teilnehmen. Sie vergleichen Fassungen kurzer"
            " Aufnahmen mit einer Referenz und bewerten ihre Qualität auf einer Skala von 0 (schlecht) bis"
            " 100 (ausgezeichnet).</p>"
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
        "trial_name": "Bewerten Sie die Aufnahmen",
        "trial": (
            "<p>Bewerten Sie die Qualität jeder Fassung im Vergleich zur Referenz. Eine davon ist die"
            " Referenz selbst.</p>"
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
        "consent": (
            "<p>Merci de participer à ce test d’écoute. Vous comparerez plusieurs versions de courts"
            " enregistrements à une référence et noterez leur qualité sur une échelle de 0 (mauvais) à 100"
            " (excellent).</p>"
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
        "trial_name": "Notez les enregistrements",
        "trial": (
            "<p>Notez la qualité de chaque version par rapport à la référence. L’une d’elles est la référence"
            " elle-même.</p>"
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
        "consent": (
            "<p>Gracias por participar en esta prueba de escucha. Comparará varias versiones de grabaciones"
            " cortas con una referencia y calificará su calidad en una escala de 0 (mala) a 100"
            " (excelente).</p>"
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
        "trial_name": "Califique las grabaciones",
        "trial": (
            "<p>Califique la calidad de cada versión en comparación con la referencia. Una de ellas es la"
            " propia referencia.</p>"
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
