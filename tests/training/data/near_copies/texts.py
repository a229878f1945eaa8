"""The texts of the set: parts of sentences in five languages, and pieces of programs.

A row is an instruction, which rows share, a few sentences of parts drawn at random, and an answer of such
sentences. Written before the detector was changed.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Language:
    """The parts of one language. A sentence is `order` with a part of each kind."""

    instructions: tuple[str, ...]
    who: tuple[str, ...]
    does: tuple[str, ...]
    where: tuple[str, ...]
    when: tuple[str, ...]
    order: str
    opening: str
    """A polite beginning, which does not change what is asked."""
    closing: str
    synonyms: tuple[tuple[str, str], ...]
    """Words with others of the same meaning."""
    opposites: tuple[tuple[str, str], ...]
    """Words with others that change the meaning."""


ENGLISH: Final = Language(
    instructions=(
        "Summarize the following note of a neighbour in one short sentence:",
        "Rewrite this message so that it sounds friendly and polite:",
        "Which questions should I ask after reading the text below?",
    ),
    who=("My neighbour", "The baker", "A young nurse", "Our landlord", "The driver", "Their teacher"),
    does=(
        "opens the heavy gate",
        "repairs an old bicycle",
        "loses the blue umbrella",
        "always feeds two grey cats",
        "buys fresh apples",
        "paints the long fence",
        "finds a broken clock",
    ),
    where=("behind the station", "near the river", "in the small garden", "at the market", "on the roof"),
    when=("every morning", "late at night", "before lunch", "on Sundays", "in the winter"),
    order="{who} {does} {where} {when}.",
    opening="Hi there, ",
    closing=" Thanks a lot!",
    synonyms=(("repairs", "fixes"), ("buys", "purchases"), ("near", "close to"), ("small", "little")),
    opposites=(("opens", "closes"), ("loses", "finds"), ("always", "never"), ("before", "after")),
)
GERMAN: Final = Language(
    instructions=(
        "Fasse die folgende Notiz aus der Nachbarschaft in einem kurzen Satz zusammen:",
        "Schreibe diese Nachricht so um, dass sie freundlich und höflich klingt:",
        "Welche Fragen sollte ich nach dem Lesen des Textes stellen?",
    ),
    who=("Mein Nachbar", "Die Bäckerin", "Ein Pfleger", "Unsere Vermieterin", "Der Fahrer", "Ihr Lehrer"),
    does=(
        "öffnet das schwere Tor",
        "repariert ein altes Fahrrad",
        "verliert den blauen Schirm",
        "füttert immer zwei Katzen",
        "kauft frische Äpfel",
        "streicht den langen Zaun",
        "findet eine kaputte Uhr",
    ),
    where=("hinter dem Bahnhof", "nahe dem Fluss", "im kleinen Garten", "auf dem Markt", "auf dem Dach"),
    when=("jeden Morgen", "spät in der Nacht", "vor dem Essen", "an Sonntagen", "im Winter"),
    order="{who} {does} {where} {when}.",
    opening="Hallo zusammen, ",
    closing=" Vielen Dank im Voraus!",
    synonyms=(("repariert", "flickt"), ("kauft", "besorgt"), ("nahe", "unweit"), ("kleinen", "winzigen")),
    opposites=(("öffnet", "schließt"), ("verliert", "findet"), ("immer", "niemals"), ("vor", "nach")),
)
FRENCH: Final = Language(
    instructions=(
        "Résume en une phrase courte le mot suivant d'un voisin :",
        "Réécris ce message pour qu'il soit aimable et poli :",
        "Quelles questions devrais-je poser après avoir lu ce texte ?",
    ),
    who=(
        "Mon voisin",
        "La boulangère",
        "Une infirmière",
        "Notre propriétaire",
        "Le chauffeur",
        "Leur maître",
    ),
    does=(
        "ouvre le lourd portail",
        "répare un vieux vélo",
        "perd le parapluie bleu",
        "nourrit toujours deux chats",
        "achète des pommes fraîches",
        "peint la longue clôture",
        "trouve une horloge cassée",
    ),
    where=("derrière la gare", "près de la rivière", "dans le petit jardin", "au marché", "sur le toit"),
    when=("chaque matin", "tard dans la nuit", "avant le déjeuner", "le dimanche", "en hiver"),
    order="{who} {does} {where} {when}.",
    opening="Bonjour à tous, ",
    closing=" Merci beaucoup d'avance !",
    synonyms=(("répare", "arrange"), ("achète", "acquiert"), ("petit", "minuscule"), ("lourd", "pesant")),
    opposites=(("ouvre", "ferme"), ("perd", "trouve"), ("toujours", "jamais"), ("avant", "après")),
)
SPANISH: Final = Language(
    instructions=(
        "Resume en una frase corta la siguiente nota de un vecino:",
        "Escribe de nuevo este mensaje para que suene amable y cortés:",
        "¿Qué preguntas debería hacer después de leer este texto?",
    ),
    who=("Mi vecino", "La panadera", "Una enfermera", "Nuestro casero", "El conductor", "Su maestra"),
    does=(
        "abre la pesada puerta",
        "repara una bicicleta vieja",
        "pierde el paraguas azul",
        "alimenta siempre a dos gatos",
        "compra manzanas frescas",
        "pinta la larga valla",
        "encuentra un reloj roto",
    ),
    where=("detrás de la estación", "cerca del río", "en el pequeño jardín", "en el mercado", "en el tejado"),
    when=("cada mañana", "muy tarde", "antes de comer", "los domingos", "en invierno"),
    order="{who} {does} {where} {when}.",
    opening="Buenas tardes, ",
    closing=" ¡Muchas gracias de antemano!",
    synonyms=(("repara", "arregla"), ("compra", "adquiere"), ("pequeño", "diminuto"), ("pesada", "maciza")),
    opposites=(("abre", "cierra"), ("pierde", "encuentra"), ("siempre", "nunca"), ("antes", "después")),
)
KOREAN: Final = Language(
    instructions=(
        "다음 이웃의 메모를 짧은 한 문장으로 요약해 주세요:",
        "이 메시지를 친절하고 공손한 말투로 다시 써 주세요:",
        "아래 글을 읽은 뒤에 어떤 질문을 하면 좋을까요?",
    ),
    who=("우리 이웃은", "빵집 주인은", "젊은 간호사는", "집주인은", "운전사는", "선생님은"),
    does=(
        "무거운 문을 연다",
        "낡은 자전거를 고친다",
        "파란 우산을 잃어버린다",
        "고양이 두 마리에게 항상 밥을 준다",
        "싱싱한 사과를 산다",
        "긴 울타리를 칠한다",
        "고장 난 시계를 찾는다",
    ),
    where=("역 뒤에서", "강 가까이에서", "작은 마당에서", "시장에서", "지붕 위에서"),
    when=("매일 아침", "늦은 밤에", "점심 전에", "일요일마다", "겨울에"),
    order="{who} {when} {where} {does}.",
    opening="안녕하세요, ",
    closing=" 미리 감사드립니다!",
    synonyms=(("고친다", "수리한다"), ("작은", "조그만"), ("낡은", "오래된"), ("싱싱한", "신선한")),
    opposites=(("연다", "닫는다"), ("잃어버린다", "찾는다"), ("항상", "전혀"), ("전에", "뒤에")),
)
LANGUAGES: Final = {"en": ENGLISH, "de": GERMAN, "fr": FRENCH, "es": SPANISH, "ko": KOREAN}

CODE: Final[tuple[tuple[str, str, str, str], ...]] = (
    (
        "Write a Python function that returns the row with the largest {0}, without those below {1}.",
        "def largest(items):\n    best = items[0]\n    for item in items:\n"
        "        if item.{0} > best.{0} and item.{1} >= {2}:\n            best = item\n    return best",
        "> best",
        "< best",
    ),
    (
        "Give me the SQL that counts the customers for each {0} whose {1} was paid.",
        "SELECT {0}, COUNT(*) AS customers\nFROM orders_{2}\nWHERE {1} IS NOT NULL\nGROUP BY {0}\n"
        "ORDER BY customers DESC;",
        "DESC;",
        "ASC;",
    ),
    (
        "How do I sort an array of objects by {0} and then by {1} in JavaScript?",
        "const sorted = [...rows].sort((a, b) => a.{0} - b.{0} || a.{1} - b.{1});\n"
        "console.log(sorted.slice({2}));",
        "a.{0} - b.{0}",
        "b.{0} - a.{0}",
    ),
    (
        "Check in bash whether the variable {0} is set, and print {1} if it is not.",
        'if [ -z "${0}" ]; then\n  echo "${1}" >&2\n  exit {2}\nfi\necho "using ${0}"',
        "-z",
        "-n",
    ),
    (
        "Write a C function that adds {0} to every element of an array of n integers above {1}.",
        "void shift(int *values, int n, int {0}, int {1}) {\n    for (int i = {2}; i < n; i++)\n"
        "        if (values[i] > {1})\n            values[i] += {0};\n}",
        "+=",
        "-=",
    ),
)
"""Question, answer, and a piece of the answer with another that changes what the program does.

`{0}` and `{1}` are names, `{2}` is a number.
"""
NAMES: Final = (
    "price",
    "weight",
    "height",
    "colour",
    "region",
    "amount",
    "delay",
    "offset",
    "status",
    "owner",
)
