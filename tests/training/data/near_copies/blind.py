"""Pairs of texts written by hand after the search was changed, and measured once.

A copy says the same as the first text. A look-alike says something else. All are invented.
"""

from typing import Final

COPIES: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "en",
        "The ferry to the island leaves from pier four as soon as the fog has lifted. Passengers with "
        "bicycles board first and wait on the lower deck.",
        "The ferry to the island leaves from pier four, as soon as the fog has lifted! Passengers with bikes "
        "board first, and wait on the lower deck",
    ),
    (
        "en",
        "how can i get red wine out of a white cotton shirt? it has already dried and i washed it once",
        "Hello :) How can I get red wine out of a white cotton shirt?? It has already dried, and I washed it "
        "once.",
    ),
    (
        "en",
        "Dear team, the projector in room B keeps switching itself off after some minutes, and the lamp was "
        "replaced last week. Could somebody look at it before the workshop?",
        "Dear team,\nthe projector in room B keeps switching itself off after some minutes, and the lamp was "
        "replaced last week. Could someone look at it before the workshop?\nBest, Kim\n(sent from my phone)",
    ),
    (
        "de",
        "Der Aufzug im Haus am Marktplatz bleibt seit Montag zwischen zwei Stockwerken stehen. Bitte "
        "schicken Sie eine Technikerin, im vierten Stock wohnen ältere Leute.",
        "Der Aufzug im Haus am Marktplatz bleibt seit Montag zwischen zwei Stockwerken stehen. Bitte "
        "schicken Sie einen Techniker, im vierten Stock wohnen aeltere Leute.",
    ),
    (
        "de",
        "Kann ich Rhabarber einfrieren, ohne ihn vorher zu kochen, und wie lange hält er sich dann?",
        "kann ich rhabarber einfrieren ohne ihn vorher zu kochen und wie lange hält er sich dann",
    ),
    (
        "fr",
        "Le musée reste ouvert pendant les travaux, mais l'entrée se fait par la cour. Les groupes doivent "
        "réserver une semaine à l'avance auprès de l'accueil.",
        "Le musée reste ouvert pendant les travaux mais l’entrée se fait par la cour. Les groupes doivent "
        "réserver une semaine à l’avance, auprès de l’accueil. Bonne visite !",
    ),
    (
        "fr",
        "Pourriez-vous m'expliquer pourquoi ma plante perd ses feuilles alors que je l'arrose chaque "
        "semaine ?",
        "Pourriez vous m'expliquer pourqoi ma plante perd ses feuilles alors que je l'arrose chaque semaine?",
    ),
    (
        "es",
        "La biblioteca presta portátiles a los estudiantes durante los exámenes. Hay que devolverlos "
        "cargados y con el mismo cable con el que se entregaron.",
        "La biblioteca presta portatiles a los estudiantes durante los examenes. Hay que devolverlos "
        "cargados y con el mismo cable con el que se entregaron.",
    ),
    (
        "es",
        "¿Me puede decir si el autobús al aeropuerto para delante del hotel o tengo que ir a la plaza?",
        "Buenas, ¿me puede decir si el autobús al aeropuerto para delante del hotel, o tengo que ir a la "
        "plaza?",
    ),
    (
        "ko",
        "도서관 열람실 예약은 전날 저녁부터 할 수 있으며, 자리를 비울 때는 반드시 짐을 챙겨 주시기 바랍니다.",
        "도서관 열람실 예약은 전날 저녁부터 할 수 있으며 자리를 비울 때는 반드시 짐을 챙겨 주시기 "
        "바랍니다 ^^",
    ),
    (
        "ko",
        "세탁기에서 물이 새는데 호스를 바꿔도 똑같아요. 수리 기사님이 언제 오실 수 있는지 알려 주세요.",
        "세탁기에서 물이 새는데 호스를 바꿔도 똑같아요. 수리 기사님이 언제쯤 오실 수 있는지 알려주세요!",
    ),
    (
        "code",
        "def mean(values):\n    if not values:\n        return None\n    return sum(values) / len(values)\n",
        'def mean(values):\n    """The mean."""\n    if not values:\n        return None\n'
        "    return sum(values) / len(values)\n",
    ),
    (
        "code",
        "for (const user of users) {\n  if (user.active && user.age >= 18) {\n    send(user.mail);\n  }\n}",
        "for (const user of users) {\n    if (user.active && user.age >= 18) {\n        send(user.mail)\n"
        "    }\n}",
    ),
    (
        "code",
        "SELECT name, city FROM clients WHERE city = 'Bern' AND visits > 3 ORDER BY name LIMIT 20;",
        "select name, city\nfrom clients\nwhere city = 'Bern' and visits > 3\norder by name\nlimit 20",
    ),
)
LOOK_ALIKES: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "en",
        "Visitors may take photographs in the hall of mirrors if they do not use a flash.",
        "Visitors may not take photographs in the hall of mirrors, even if they do not use a flash.",
    ),
    (
        "en",
        "Please cancel the hotel in Porto and keep the one in Lisbon, we arrive on the second of June.",
        "Please cancel the hotel in Lisbon and keep the one in Porto, we arrive on the second of June.",
    ),
    (
        "en",
        "Translate into French: The meeting starts at nine.",
        "Translate into Dutch: The meeting starts at nine.",
    ),
    (
        "de",
        "Der Vertrag verlängert sich um ein Jahr, wenn er bis zum 30. September gekündigt wird.",
        "Der Vertrag verlängert sich um ein Jahr, wenn er bis zum 31. Oktober gekündigt wird.",
    ),
    (
        "de",
        "Für den Kuchen ohne Nüsse nehmen wir Mandelmilch, Zucker und etwas Zimt aus dem Glas.",
        "Für den Kuchen mit Nüssen nehmen wir Mandelmilch, Zucker und etwas Zimt aus dem Glas.",
    ),
    (
        "fr",
        "Le chien de la voisine aboie quand le facteur passe, mais il n'est pas méchant.",
        "Le chat de la voisine dort quand le facteur passe, mais il n'est jamais malade.",
    ),
    (
        "fr",
        "Ce médicament se prend avant les repas, avec un grand verre d'eau, pendant dix jours.",
        "Ce médicament se prend après les repas, avec un grand verre d'eau, pendant dix jours.",
    ),
    (
        "es",
        "El tren de las ocho para en todas las estaciones hasta Sevilla y lleva coche restaurante.",
        "El tren de las ocho no para en ninguna estación hasta Sevilla y lleva coche restaurante.",
    ),
    (
        "ko",
        "이 약은 식사 전에 물과 함께 드시고, 사흘 동안 하루 두 번 복용하세요.",
        "이 약은 식사 후에 물과 함께 드시고, 사흘 동안 하루 세 번 복용하세요.",
    ),
    (
        "ko",
        "내일 회의는 삼 층 회의실에서 열 시에 시작합니다.",
        "내일 회의는 오 층 회의실에서 두 시에 시작합니다.",
    ),
    (
        "code",
        "def first(items):\n    return min(items, key=lambda item: item.price)\n",
        "def first(items):\n    return max(items, key=lambda item: item.price)\n",
    ),
    (
        "code",
        "while (left <= right) {\n  mid = (left + right) / 2;\n  if (a[mid] < key) left = mid + 1;\n}",
        "while (left < right) {\n  mid = (left + right) / 2;\n  if (a[mid] > key) left = mid + 1;\n}",
    ),
    (
        "code",
        "git reset --soft HEAD~1 && git commit -m 'fix the parser'",
        "git reset --hard HEAD~1 && git commit -m 'fix the parser'",
    ),
)
