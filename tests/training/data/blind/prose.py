"""Longer texts written by hand after the detectors, by language; personal data is marked as `[KIND|value]`.

All persons, firms and numbers are invented.
"""

from typing import Final

PROSE: Final[dict[str, tuple[str, ...]]] = {
    "en": (
        "Hello Mrs Tanaka,\n\nas discussed I moved the appointment to 14/05/2026, 10:30. If that "
        "does not suit you, ring [PHONE|020 7946 0812] or write to "
        "[EMAIL|front-desk@harley-dental.co.uk]. Ref 2026-0514-1030.\n\nKind regards",
        "user: hey can u change my card? old one was [CARD|5555555555554444]\nagent: Sure. Please "
        "never post the full number. Your ticket is 84412-07.",
        "John's new cell is [PHONE|(718) 555-0162] and his work e-mail [EMAIL|jd@parkline.us]; SSN "
        "ends in 8726.",
        "Refund of $1,250.00 to IBAN [IBAN|GB29NWBK60161331926819], invoice INV-2025-00231, VAT GB "
        "123 4567 89.",
        "Please fax the signed form (pp. 3-12) to [PHONE|+1 (303) 555-0118]. Form 1040-ES, OMB No. "
        "1545-0074.",
        "Flight BA0117 leaves at 08:25 from LHR T5, seat 23K, booking X7K2PQ, ticket 125-2401234567.",
        "The library of 2,340,118 volumes moved in 1998; call number 823.914 ROW, barcode 30114012345678.",
        "Applicant [SSN|212-09-6710] and co-applicant [SSN|601-44-0031], loan 000-12-3456-7, rate 6.125%.",
        "Ping statistics: 4 packets sent, rtt 12.41/13.02/14.77/0.81 ms, ttl 55, from [IP|151.101.65.140].",
        "Serial 4012-8888-8888-1882 printed on the lid. Model 5105-1051-0510-5101.",
        "On 3.10.2.45 of the changelog the parser was fixed; before, 3.9.18.2 crashed.",
        "ZIP 94103-2201, county code 06-075, parcel APN 3704-012, lot 555-0199.",
        "He scored 212-555-9 in the decathlon? No: 8,212 points, 555 more than 1999.",
        "WhatsApp me: [PHONE|+44 7911 123456]. Insta @lee.codes, steam id 76561198000000000.",
    ),
    "de": (
        "Sehr geehrter Herr Yilmaz,\nIhre Rechnung Nr. 2026-03-00471 über 1.249,90 € ist seit "
        "12.02.2026 fällig. Bitte zahlen Sie auf [IBAN|DE02120300000000202051] (BIC BYLADEM1001). "
        "Rückfragen: [PHONE|0911 92385-0].",
        "Hi, bin umgezogen, neue Nummer [PHONE|0151 23456789], Mail bleibt [EMAIL|nina_k@web-post.de] lg",
        "Finanzamt: Meine IdNr. [IDNR|86 095 742 719] steht auf dem Bescheid, die Steuernummer "
        "181/815/08155 auch.",
        "Zählerstand 004512,7 am 31.12.2025, Zählernummer 1 EMH00 1234 5678, Vertragskonto 2200 3344 556.",
        "Paragraf 12.4.33.1 der Bauordnung; vgl. BGBl. I S. 2254, 2260, und Az. 4 K 1234/19.",
        "ICE 1537, Wagen 24, Plätze 61-64, Auftragsnummer 3X7QKD, Reservierung 8061-4711-55.",
        "Kontaktformular kam von [IP|84.141.12.201], Browser Firefox 128.0.3, Sitzung a3f9c2e1b7.",
        "Notruf 112, Bürgertelefon 115, Kartensperrung 116 116.",
        "Meine Kinder haben 2.345.678 Punkte, Platz 12.345 von 1.000.000.",
        "Rückruf an [PHONE|+49 (0) 711 2345-678] ab 14 Uhr, Kundennummer 0711 2345678.",
    ),
    "fr": (
        "Madame,\nvotre dossier 2026-75-004512 est incomplet : il manque le relevé d'identité "
        "bancaire ([IBAN|FR76 3000 6000 0112 3456 7890 189]) et une copie du passeport. Tél. "
        "[PHONE|01 44 55 66 77].",
        "slt c moi, nouveau num [PHONE|07 58 12 34 56], dis-le à [EMAIL|theo.b@courriel-sud.fr]",
        "Assuré [NIR|1 84 12 76 451 089 46], régime général, feuille du 04/03/2026.",
        "SIRET 732 829 320 00074, SIREN 732 829 320, TVA FR 44 732829320, code APE 6202A.",
        "TGV 6607, voiture 12, place 84, réf. QX7TRM, départ 14 h 04, prix 78,00 €.",
        "Article 8.12.40.3 du code, alinéa 2 ; JO n° 0123 du 28/05/2024, texte 45 sur 130.",
        "Accès refusé à [IP|90.63.214.8] puis à [IP|2a01:cb04:8f2::4c1], port 443.",
        "La France compte 68 373 433 habitants et 34 935 communes, 551 500 km².",
        "Carte [CARD|4970 1012 3456 7893] expirée, appelez le [PHONE|+33 9 69 32 10 04].",
    ),
    "es": (
        "Estimada señora: su expediente 2026/004512-B sigue abierto. Llame al [PHONE|955 062 627] "
        "o escriba a [EMAIL|atencion.cliente@aguas-sur.es]. NIF de la empresa: B12345674.",
        "D. Luis, con DNI [DNI|00000000T] y domicilio en la C/ Mayor, 12, 3.º B, 28013 Madrid, "
        "autoriza el cargo en [IBAN|ES91 2100 0418 4502 0005 1332].",
        "Permiso de residencia [NIE|Y2345678Z], válido hasta 04/03/2030.",
        "hola soy ana mi wasap es [PHONE|+34 655 12 34 56] me llamas?",
        "El apartado 6.33.1.2 y la norma UNE 157001:2014; BOE núm. 106, pág. 34890.",
        "Se vendieron 912 345 678 unidades entre 1999-2004, a 1.234,50 € de media.",
        "Intento desde [IP|83.45.201.17] a las 03:14:15, sesión 9f2c-77aa.",
        "Vuelo IB3422, localizador JX8K2, billete 075-2401234567, asiento 14C.",
    ),
    "ko": (
        "안녕하세요, 고객님. 주문(20260304-0012345)하신 상품이 3월 5일 도착합니다. "
        "문의는 [PHONE|1588-1255] 또는 [EMAIL|help@haneul-shop.co.kr]로 해 주세요.",
        "나 번호 바꿨어 [PHONE|010-9876-5432]야 저장해줘~ 계좌는 국민 123456-04-567890",
        "민원인 주민등록번호 [RRN|901010-1234560], 접수번호 2026-0000123.",
        "서울 인구는 9,386,034명이고 면적은 605.2㎢입니다. 우편번호 04524.",
        "사업자등록번호 124-81-00998, 통신판매업 2020-서울강남-01234",
        "서버 [IP|211.233.58.102]가 3.12.45.6 버전으로 바뀌었습니다.",
        "카드 [CARD|3782 822463 10005] 한도가 초과됐습니다. 승인번호 30012345.",
        "대한항공 KE0907, 좌석 45A, 예약번호 6789-0123, 13:20 출발",
    ),
    "ja": (
        "お世話になっております。見積書（No.2026-0304-01）を[EMAIL|eigyo@yamabuki-seisaku.co.jp]へお送りください。お電"
        "話は[PHONE|03-6721-0000]まで。",
        "携帯変えました。[PHONE|070-1234-5678]です。",
        "〒100-0001 東京都千代田区千代田1-1、口座番号1234567、振込先コード0001-123。",
        "人口は13,960,236人、面積は2,194.07平方キロメートルです。",
        "のぞみ225号、12号車5番E席、予約番号54321、2026年3月4日10:21発。",
        "不正アクセス元は[IP|126.233.17.204]でした。版は4.2.17.90です。",
        "カード（[CARD|3530111333300000]）の有効期限は27年9月です。",
    ),
    "code": (
        '{\n  "id": "b7f4c1de-9f2a-4a6b-8f5d-0c2b7e1a9d33",\n  "customer": {"email": '
        '"[EMAIL|olga@mirna.pl]", "tel": "[PHONE|+48 22 123 45 67]"},\n  "total": 4111.11,\n  '
        '"tracking": "00340434161094042557"\n}',
        "## [4.13.60.2] - 2026-03-04\n- bump libcurl to 8.55.12.1\n- thanks @mira and [EMAIL|mira@devhub.io]",
        'func TestLuhn(t *testing.T) {\n\tif !valid("79927398713") { t.Fatal() }\n\t// 0x4111111111111111\n}',
        "version: '3.9'\nservices:\n  db:\n    image: postgres:16.4\n    ports: "
        "['127.0.0.1:5432:5432']\n    environment: {PGHOST: 10.20.30.40}",
        "upstream app { server [IP|185.199.108.153]:443; server 172.20.0.3:8000 backup; }",
        "2026-03-04T10:22:01.123456Z ERROR req=8f14e45fceea167a5a36dedd4bea2543 took 1234567890ns",
        "const RE = /^\\d{3}-\\d{2}-\\d{4}$/; // e.g. 078-05-1120 is void\nconst MAX = "
        "9_007_199_254_740_991;",
        "SELECT phone FROM t WHERE id IN (4155550132, 2125550198) AND ts > 1709546521;",
        'let v = semver::parse("1.77.2")?; let b = [212, 555, 1234]; let h = 0xdeadbeef_u32;',
        "pub static KEY: [u8; 4] = [192, 168, 200, 1]; // rev 2.70.3.9",
        '<a href="mailto:[EMAIL|sales@lumen-optik.de]">Mail</a> <img srcset="a@2x.png 2x, b@3x.jpg 3x">',
        "name,mail,phone\nIna,[EMAIL|ina@post-haus.at],[PHONE|+43 1 5128900]\nUwe,,",
        "git@gitlab.com:team/app.git\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ root@build",
        "W = X@self.w.t(); y = attn@v.reshape(b, -1); @pytest.mark.slow",
        'Traceback: File "/usr/lib/python3.11/site.py", line 2125, in f; pid 41555, tid 140234567890123',
        'chart: 12.40.3.1\nappVersion: "10.44.61.8"\ndigest: sha256:4111111111111111aaaa',
        "gcc-12.3.45.6-amd64.deb openssl_3.0.13.77_all.deb",
        "POSTCODE='SW1A 1AA'; LAT=51.501009; LON=-0.141588; EPSG=27700",
        "assert isbn13('9780306406157') and ean('4006381333931') and issn('0378-5955')",
        "Set-Cookie: sid=5105105105105100x; Expires=Wed, 04 Mar 2026 10:22:01 GMT",
    ),
}
