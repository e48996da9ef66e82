"""Methods of listening tests, and the default texts of their pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mushra.config.values import Language

Method = Literal["mushra", "bs1116", "ab", "abx", "acr", "dcr"]


@dataclass(frozen=True)
class MethodTexts:
    """Texts of a method in one language; ``trial`` is HTML.

    Attributes:
        task: what listeners will do, for the first page.
        trial_name, trial: heading and text of a trial.
    """

    task: str
    trial_name: str
    trial: str


#: Listening-quality scale of P.800, from 5 to 1.
QUALITY: dict[Language, list[str]] = {
    "en": ["Excellent", "Good", "Fair", "Poor", "Bad"],
    "de": ["Ausgezeichnet", "Gut", "Ordentlich", "Mäßig", "Schlecht"],
    "fr": ["Excellent", "Bon", "Assez bon", "Médiocre", "Mauvais"],
    "es": ["Excelente", "Buena", "Aceptable", "Mediocre", "Mala"],
}
NO_PREFERENCE: dict[Language, str] = {
    "en": "No preference",
    "de": "Keine Vorliebe",
    "fr": "Pas de préférence",
    "es": "Sin preferencia",
}


def method_texts(method: Method, language: Language, *, reference: bool = False) -> MethodTexts:
    """Texts of a method; ``reference``: whether an AB trial has one."""
    return _TEXTS[language]["ab_reference" if method == "ab" and reference else method]


_TEXTS: dict[Language, dict[str, MethodTexts]] = {
    "en": {
        "mushra": MethodTexts(
            "You will compare versions of short recordings with a reference and grade how good they are on a"
            " scale from 0 (bad) to 100 (excellent).",
            "Grade the recordings",
            "<p>Grade the quality of each version against the reference. One of them is the reference"
            " itself.</p>",
        ),
        "bs1116": MethodTexts(
            "You will compare two versions of a short recording with a reference. One of them is the"
            " reference itself: you find it, and grade how much the other differs from it, from 5.0"
            " (imperceptible) to 1.0 (very annoying).",
            "Find and grade the difference",
            "<p>One of A and B is the reference itself. Give it 5.0, and grade the other against the"
            " reference.</p>",
        ),
        "ab": MethodTexts(
            "You will compare two versions of a short recording at a time and say which one you prefer.",
            "Compare the two",
            "<p>Listen to both as often as you like.</p>",
        ),
        "ab_reference": MethodTexts(
            "You will compare two versions of a short recording with a reference and say which one is closer"
            " to it.",
            "Compare the two",
            "<p>Listen to the reference and to both versions as often as you like.</p>",
        ),
        "abx": MethodTexts(
            "You will hear two versions of a short recording, A and B, and a third one, X, which is the same"
            " as one of them. You say which one X is.",
            "A, B and X",
            "<p>X is the same as A or the same as B. Listen to all three as often as you like.</p>",
        ),
        "acr": MethodTexts(
            "You will hear short recordings one after the other and rate the quality of each in one of five"
            " words, from excellent to bad.",
            "Rate the quality",
            "<p>How good is the quality of what you hear?</p>",
        ),
        "dcr": MethodTexts(
            "You will hear short recordings in pairs: first the reference, then a version of it. You rate how"
            " much worse the version is, from 5 (inaudible) to 1 (very annoying).",
            "Rate the degradation",
            "<p>Listen to the reference and then to its version.</p>",
        ),
    },
    "de": {
        "mushra": MethodTexts(
            "Sie vergleichen Fassungen kurzer Aufnahmen mit einer Referenz und bewerten ihre Qualität auf"
            " einer Skala von 0 (schlecht) bis 100 (ausgezeichnet).",
            "Bewerten Sie die Aufnahmen",
            "<p>Bewerten Sie die Qualität jeder Fassung im Vergleich zur Referenz. Eine davon ist die"
            " Referenz selbst.</p>",
        ),
        "bs1116": MethodTexts(
            "Sie vergleichen zwei Fassungen einer kurzen Aufnahme mit einer Referenz. Eine davon ist die"
            " Referenz selbst: Sie finden sie und bewerten, wie stark die andere von ihr abweicht, von 5,0"
            " (nicht wahrnehmbar) bis 1,0 (sehr störend).",
            "Finden und bewerten Sie den Unterschied",
            "<p>A oder B ist die Referenz selbst. Geben Sie ihr 5,0 und bewerten Sie die andere Fassung im"
            " Vergleich zur Referenz.</p>",
        ),
        "ab": MethodTexts(
            "Sie vergleichen jeweils zwei Fassungen einer kurzen Aufnahme und sagen, welche Sie bevorzugen.",
            "Vergleichen Sie die beiden",
            "<p>Hören Sie beide so oft an, wie Sie möchten.</p>",
        ),
        "ab_reference": MethodTexts(
            "Sie vergleichen jeweils zwei Fassungen einer kurzen Aufnahme mit einer Referenz und sagen,"
            " welche ihr näher ist.",
            "Vergleichen Sie die beiden",
            "<p>Hören Sie die Referenz und beide Fassungen so oft an, wie Sie möchten.</p>",
        ),
        "abx": MethodTexts(
            "Sie hören zwei Fassungen einer kurzen Aufnahme, A und B, und eine dritte, X, die gleich einer"
            " der beiden ist. Sie sagen, gleich welcher.",
            "A, B und X",
            "<p>X ist gleich A oder gleich B. Hören Sie alle drei so oft an, wie Sie möchten.</p>",
        ),
        "acr": MethodTexts(
            "Sie hören kurze Aufnahmen nacheinander und bewerten die Qualität jeder mit einem von fünf"
            " Wörtern, von ausgezeichnet bis schlecht.",
            "Bewerten Sie die Qualität",
            "<p>Wie gut ist die Qualität dessen, was Sie hören?</p>",
        ),
        "dcr": MethodTexts(
            "Sie hören kurze Aufnahmen paarweise: zuerst die Referenz, dann eine Fassung davon. Sie bewerten,"
            " wie viel schlechter die Fassung ist, von 5 (unhörbar) bis 1 (sehr störend).",
            "Bewerten Sie die Verschlechterung",
            "<p>Hören Sie die Referenz und danach die Fassung davon an.</p>",
        ),
    },
    "fr": {
        "mushra": MethodTexts(
            "Vous comparerez plusieurs versions de courts enregistrements à une référence et noterez leur"
            " qualité sur une échelle de 0 (mauvais) à 100 (excellent).",
            "Notez les enregistrements",
            "<p>Notez la qualité de chaque version par rapport à la référence. L’une d’elles est la référence"
            " elle-même.</p>",
        ),
        "bs1116": MethodTexts(
            "Vous comparerez deux versions d’un court enregistrement à une référence. L’une d’elles est la"
            " référence elle-même : vous la trouverez et noterez à quel point l’autre en diffère, de 5,0"
            " (imperceptible) à 1,0 (très gênant).",
            "Trouvez et notez la différence",
            "<p>A ou B est la référence elle-même. Donnez-lui 5,0 et notez l’autre par rapport à la"
            " référence.</p>",
        ),
        "ab": MethodTexts(
            "Vous comparerez à chaque fois deux versions d’un court enregistrement et direz laquelle vous"
            " préférez.",
            "Comparez les deux",
            "<p>Écoutez les deux aussi souvent que vous le souhaitez.</p>",
        ),
        "ab_reference": MethodTexts(
            "Vous comparerez à chaque fois deux versions d’un court enregistrement à une référence et direz"
            " laquelle en est la plus proche.",
            "Comparez les deux",
            "<p>Écoutez la référence et les deux versions aussi souvent que vous le souhaitez.</p>",
        ),
        "abx": MethodTexts(
            "Vous écouterez deux versions d’un court enregistrement, A et B, et une troisième, X, identique à"
            " l’une des deux. Vous direz à laquelle.",
            "A, B et X",
            "<p>X est identique à A ou à B. Écoutez les trois aussi souvent que vous le souhaitez.</p>",
        ),
        "acr": MethodTexts(
            "Vous écouterez de courts enregistrements l’un après l’autre et noterez la qualité de chacun par"
            " l’un de cinq mots, d’excellent à mauvais.",
            "Notez la qualité",
            "<p>Quelle est la qualité de ce que vous entendez ?</p>",
        ),
        "dcr": MethodTexts(
            "Vous écouterez de courts enregistrements par paires : d’abord la référence, puis une version de"
            " celle-ci. Vous noterez à quel point la version est dégradée, de 5 (inaudible) à 1 (très"
            " gênant).",
            "Notez la dégradation",
            "<p>Écoutez la référence, puis sa version.</p>",
        ),
    },
    "es": {
        "mushra": MethodTexts(
            "Comparará varias versiones de grabaciones cortas con una referencia y calificará su calidad en"
            " una escala de 0 (mala) a 100 (excelente).",
            "Califique las grabaciones",
            "<p>Califique la calidad de cada versión en comparación con la referencia. Una de ellas es la"
            " propia referencia.</p>",
        ),
        "bs1116": MethodTexts(
            "Comparará dos versiones de una grabación corta con una referencia. Una de ellas es la propia"
            " referencia: la encontrará y calificará cuánto se diferencia la otra de ella, de 5,0"
            " (imperceptible) a 1,0 (muy molesto).",
            "Encuentre y califique la diferencia",
            "<p>A o B es la propia referencia. Déle 5,0 y califique la otra en comparación con la"
            " referencia.</p>",
        ),
        "ab": MethodTexts(
            "Comparará cada vez dos versiones de una grabación corta y dirá cuál prefiere.",
            "Compare las dos",
            "<p>Escuche ambas tantas veces como quiera.</p>",
        ),
        "ab_reference": MethodTexts(
            "Comparará cada vez dos versiones de una grabación corta con una referencia y dirá cuál se le"
            " parece más.",
            "Compare las dos",
            "<p>Escuche la referencia y ambas versiones tantas veces como quiera.</p>",
        ),
        "abx": MethodTexts(
            "Escuchará dos versiones de una grabación corta, A y B, y una tercera, X, que es igual a una de"
            " las dos. Dirá a cuál.",
            "A, B y X",
            "<p>X es igual a A o a B. Escuche las tres tantas veces como quiera.</p>",
        ),
        "acr": MethodTexts(
            "Escuchará grabaciones cortas una tras otra y calificará la calidad de cada una con una de cinco"
            " palabras, de excelente a mala.",
            "Califique la calidad",
            "<p>¿Qué calidad tiene lo que oye?</p>",
        ),
        "dcr": MethodTexts(
            "Escuchará grabaciones cortas por pares: primero la referencia y después una versión de ella."
            " Calificará cuánto peor es la versión, de 5 (inaudible) a 1 (muy molesto).",
            "Califique la degradación",
            "<p>Escuche la referencia y después su versión.</p>",
        ),
    },
}
