"""Texts with personal data that is marked, as `[KIND|value]`, and texts that only look as if they had some.

Chats and mails in five languages, and code, logs and documents. All persons, numbers and addresses are
invented: telephone numbers are those that regulators keep for films, or are made up.
"""

MAILS = (
    # English
    "Hi Tom, please send the invoice to [EMAIL|anna.berg84@northwind-trade.com] before Friday. Thanks!",
    "My number is [PHONE|(415) 555-2671], call any time after 5.",
    "you can reach me at [PHONE|+1 212-555-0187] or [EMAIL|j.doe@quillpost.net]",
    "Card declined again: [CARD|4111 1111 1111 1111], exp 09/27. What now?",
    "SSN on the form was [SSN|536-22-8726], please correct it.",
    "We blocked [IP|81.2.69.142] after forty failed logins.",
    "London office: [PHONE|+44 20 7946 0018], ask for Priya.",
    "text me on [PHONE|07911 123456] when the parcel is there",
    "Wire it to [IBAN|GB82 WEST 1234 5698 7654 32] today please.",
    # German
    "Guten Tag, meine neue Adresse lautet [EMAIL|karl.meier@postfach-nord.de]. Viele Grüße",
    "Bitte überweisen Sie auf [IBAN|DE89 3704 0044 0532 0130 00], Verwendungszweck Miete.",
    "Rufen Sie mich unter [PHONE|+49 30 901820] zurück.",
    "Die Anmeldung kam von [IP|91.198.174.192], stimmt das?",
    # French
    "Bonjour, écrivez-moi à [EMAIL|lucie-martin@courrier-lyon.fr], s'il vous plaît.",
    "Mon numéro : [PHONE|+33 1 42 68 53 00], le matin de préférence.",
    "Voici mon IBAN : [IBAN|FR14 2004 1010 0505 0001 3M02 606]",
    # Spanish
    "Hola, mi correo es [EMAIL|marta_ruiz@correo-sur.es] y espero su respuesta.",
    "Llámeme al [PHONE|+34 912 345 678], gracias.",
    "Mi tarjeta es [CARD|5555 5555 5555 4444], no funciona.",
    # Korean
    "제 이메일은 [EMAIL|minsu.kim@hanmail-test.co.kr] 입니다.",
    "[PHONE|010-2345-6789]로 전화 주세요.",
    "주민등록번호는 [RRN|800829-1294822] 이에요.",
    "문자 주세요 [PHONE|01023456789]",
    # Elsewhere
    "# maintainer: [EMAIL|ops.lead@widget-works.io]",
    'logger.info("login from %s", "[IP|203.0.115.77]")',
    "cursor.execute(\"insert into users values (7, '[EMAIL|lena@brightmail.org]')\")",
    "2026-03-04 10:22:01 WARN login failed user=[EMAIL|sam.o@lakeview.edu] ip=[IP|2a00:1450:4001:81b::200e]",
)

PLAIN = (
    # Code
    "result = A@B.mean(axis=0) + x@w.transpose(0, 1)",
    "y = q@k.T\nz = a@b.sum()",
    "git clone git@github.com:acme/tools.git",
    "ssh deploy@build-01 'systemctl restart web'",
    "@app.route('/login')\n@requires_auth.admin\ndef login(): ...",
    "import torch\nt = torch.tensor([4111, 1111, 1111])\nprint(t@t.to('cpu'))",
    "assert parse('user@example.com') == ('user', 'example.com')",
    "smtp.send(to='test@example.org', sender='noreply@localhost.localdomain')",
    "HOST = '127.0.0.1'\nPORT = 8000",
    "server.bind(('0.0.0.0', 8080))",
    "allow 10.0.0.0/8; allow 192.168.1.15; deny all;",
    "listen [::1]:8080;",
    "ping fe80::1%eth0",
    "docs use 192.0.2.10, 198.51.100.7 and 2001:db8::42",
    "pip install numpy==1.26.4 'torchvision>=0.17.0.1'",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) Chrome/120.0.6099.71 Safari/537.36",
    "MAX = 2147483647\nSEED = 1234567890\nts = 1700000000",
    "id = 4111111111111112  # fails the Luhn check",
    "CREATE TABLE t (id BIGINT DEFAULT 6502530000);",
    "#define MAGIC 0x7f454c46\n#define KEY 2125551234u",
    "std::vector<int> v; std::cout << a::b::c;",
    "use std::io::{self, Read};\nlet x = crate::a::b();",
    "sha = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'",
    "uuid 123e4567-e89b-12d3-a456-426614174000",
    "MAC 00:1A:2B:3C:4D:5E is up",
    "for i in range(100, 665): print(f'{i:03}-{i % 99:02}-0000')",
    "echo $((212-555-1234))",
    "x = 212 - 555 - 1234",
    "grid[3][4] = 010; mode = 0644; umask 0022",
    "curl https://api.service.dev/v1/items/4155552671",
    # Versions, sections, references
    "Upgrade firmware 2.14.7.33 before you continue.",
    "Build 10.0.19045.3803 fixes the crash; version 8.8.4.4 does not.",
    "See section 4.12.3.1 and § 12.4.1.7 of the agreement.",
    "3.2.1.4 Installation\n3.2.1.5 First start",
    "As clause 14.2.1.9 says, figure 7.1.2.3 shows the valve.",
    "OID 1.3.6.1.4.1.311 belongs to the vendor.",
    "Release 25.4.11.2 (codename Heron) ships in May.",
    # Numbers of everyday texts
    "Order 20240115-100234 was shipped on 2024-01-15 at 10:23:45.",
    "The population was 1,234,567,890 in 1998-2003.",
    "ISBN 978-3-16-148410-0, ISSN 2049-3630, DOI 10.1000/182",
    "Flug LH 4711 am 12.03.2026 um 14:30, Sitz 21A, Preis 1.234,56 €",
    "Le score était 21-19, 18-21, 21-15 après 73 minutes.",
    "Quedan 12 345 678 habitantes según el censo de 2020.",
    "회의는 2026-03-15 14:00에 3층 302호에서 합니다. 참가자는 1,024명.",
    "Ticket #536228726 is still open. Invoice 2023-11-0042.",
    "Serien-Nr. 8934-2211-9087, Chargennummer 4000123412341235",
    "The ratio is 3.14159265358979 and the error 1e-10.",
    "GPS 52.520008, 13.404954; elevation 34 m",
    "Matrix rows: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
    "She said @maria and bob@home are the same handle.",
    "Use AB12 CD34 EF56 as the coupon, and GB29 as the gate.",
)
