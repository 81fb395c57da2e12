use std::time::Duration;

use tokio::time::Instant;

use super::*;

fn read_text(text: &str) -> ParsedMail {
    parse(text.replace('\n', "\r\n").as_bytes()).unwrap()
}

fn base64(bytes: &[u8]) -> String {
    data_encoding::BASE64.encode(bytes)
}

const PLAIN: &str = "\
From: =?utf-8?q?Ana_Mart=C3=ADnez?= <Ana@Example.ORG>
To: Desk <desk@practice.example>, \"Two, Too\" <two@practice.example>
Cc: other@example.org
Reply-To: ana.new@example.org
Subject: =?utf-8?b?wqFIb2xhIQ==?=
\tagain
Date: Mon, 17 Nov 2025 09:30:00 -0600
Message-ID: <a1@example.org>
References: <r1@practice.example> <r2@example.org>
In-Reply-To: <r2@example.org>
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Buenos d=EDas,
> quoted
";

#[test]
fn a_plain_mail_is_read_with_all_its_headers() {
    let mail = read_text(PLAIN);
    let from = mail.from.unwrap();
    assert_eq!(from.name.as_deref(), Some("Ana Martínez"));
    assert_eq!(from.address.as_str(), "Ana@example.org");
    assert_eq!(mail.to.len(), 2);
    assert_eq!(mail.cc.len(), 1);
    assert_eq!(mail.reply_to.unwrap().address.as_str(), "ana.new@example.org");
    assert_eq!(mail.subject, "¡Hola! again");
    let sent = mail.sent.unwrap();
    assert_eq!((sent.at.to_string().as_str(), sent.offset), ("2025-11-17T15:30:00Z", Offset(-360)));
    assert_eq!(mail.message_id.as_deref(), Some("a1@example.org"));
    assert_eq!(mail.references, ["r1@practice.example", "r2@example.org"]);
    assert_eq!(mail.text, "Buenos días,\n> quoted");
    assert_eq!((mail.html, mail.automatic, mail.bounce), (None, None, None));
    assert!(mail.remarks.is_empty() && mail.attachments.is_empty());
}

const MIXED: &str = "\
From: ana@example.org
Subject: files
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=outer

--outer
Content-Type: multipart/related; boundary=rel

--rel
Content-Type: multipart/alternative; boundary=alt

--alt
Content-Type: text/plain; charset=utf-8

Look at my rash
--alt
Content-Type: text/html; charset=utf-8

<p>Look at <b>my rash</b><img src=\"cid:pic@x\"><img src=\"https://t.example/p.gif\"></p>
--alt--
--rel
Content-Type: image/jpeg; name=photo.jpg
Content-ID: <pic@x>
Content-Disposition: inline
Content-Transfer-Encoding: base64

iVBORw0KGgoAAAA=
--rel--
--outer
Content-Type: application/octet-stream
Content-Disposition: attachment; filename*=utf-8''..%2F..%2Fbill%E2%80%AEgpj.pdf
Content-Transfer-Encoding: base64

JVBERi0xLjc=
--outer
Content-Type: audio/x-wav; name=msg0001.wav
Content-Transfer-Encoding: base64

UklGRgAAAABXQVZFZm10IA==
--outer
Content-Type: message/rfc822

From: Bob <bob@example.org>
Subject: =?utf-8?q?Re=3A_Hi?=
Content-Type: multipart/mixed; boundary=in

--in
Content-Type: text/plain

Inner words
--in
Content-Type: text/calendar; method=REQUEST

BEGIN:VCALENDAR
END:VCALENDAR
--in--
--outer--
";

#[test]
fn parts_become_text_html_and_files() {
    let mail = read_text(MIXED);
    assert!(mail.text.starts_with("Look at my rash"), "{}", mail.text);
    assert!(mail.text.contains("From: Bob <bob@example.org>\nSubject: Re: Hi\n\nInner words"), "{}", mail.text);
    let html = mail.html.unwrap();
    assert!(html.contains(r#"<img src="cid:pic@x">"#) && !html.contains("t.example"), "{html}");
    assert_eq!(mail.remarks, ["One picture from the internet was blocked."]);
    let files: Vec<_> = mail.attachments.iter().map(|f| (f.name.as_str(), f.media_type.as_str())).collect();
    assert_eq!(
        files,
        [
            ("photo.jpg", "image/png"),
            ("billgpj.pdf", "application/pdf"),
            ("msg0001.wav", "audio/wav"),
            ("Re_ Hi.eml", "message/rfc822"),
            ("invitation.ics", "text/calendar"),
        ]
    );
    assert_eq!(mail.attachments[0].content_id.as_deref(), Some("pic@x"));
    let eml = String::from_utf8_lossy(&mail.attachments[3].bytes);
    assert!(eml.starts_with("From: Bob") && eml.trim_end().ends_with("--in--"), "{eml}");
}

#[test]
fn html_alone_gives_text_too() {
    let mail = read_text(
        "From: a@example.org\nContent-Type: text/html\n\n<p>Call <a href=\"https://e.example/x\">me</a></p>\n",
    );
    assert!(mail.html.unwrap().contains("me [e.example]"));
    assert_eq!(mail.text.trim(), "Call me [e.example]");
}

const DSN: &str = "\
Return-Path: <>
From: MAILER-DAEMON@practice.example (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
Content-Type: multipart/report; report-type=delivery-status; boundary=\"b\"

--b
Content-Description: Notification

It could not be delivered.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; practice.example
X-Postfix-Queue-ID: 4XYZ

Final-Recipient: rfc822; fine@example.org
Action: relayed
Status: 2.0.0

Final-Recipient: rfc822; gone@example.org
Original-Recipient: rfc822;gone@example.org
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 unknown
  user

--b
Content-Type: text/rfc822-headers

Subject: Your appointment
Message-ID: <token@practice.example>

--b--
";

#[test]
fn a_bounce_names_the_mail_that_it_reports_on() {
    for returned in ["text/rfc822-headers", "message/rfc822"] {
        let mail = read_text(&DSN.replace("text/rfc822-headers", returned));
        let bounce = mail.bounce.unwrap();
        assert_eq!(bounce.original_message_id.as_deref(), Some("token@practice.example"), "{returned}");
        assert_eq!(bounce.recipient.unwrap().as_str(), "gone@example.org");
        assert_eq!((bounce.action.as_str(), bounce.status.as_str()), ("failed", "5.1.1"));
        assert_eq!(mail.automatic, Some(Automatic::Bounce));
        assert!(mail.text.contains("could not be delivered"));
    }
    let old = read_text(
        "From: MAILER-DAEMON@mx.example\nSubject: failure notice\n\nSorry.\n\n--- Below:\nMessage-ID: <old@practice.example>\n",
    );
    assert_eq!(old.bounce.unwrap().original_message_id.as_deref(), Some("old@practice.example"));
}

#[test]
fn mail_that_nobody_wrote_is_marked() {
    let table = [
        ("Auto-Submitted: auto-replied", Some(Automatic::Reply)),
        ("Auto-Submitted: no", None),
        ("Return-Path: <>", Some(Automatic::Reply)),
        ("Precedence: auto_reply", Some(Automatic::Reply)),
        ("X-Autoreply: yes", Some(Automatic::Reply)),
        ("Precedence: bulk", Some(Automatic::Bulk)),
        ("List-Id: <news.example.org>", Some(Automatic::Bulk)),
        ("List-Unsubscribe: <https://example.org/u>", Some(Automatic::Bulk)),
        ("Return-Path: <a@example.org>", None),
        (
            "Return-Path: <>\nContent-Type: multipart/report; report-type=disposition-notification; boundary=b",
            Some(Automatic::Reply),
        ),
    ];
    for (header, expected) in table {
        assert_eq!(read_text(&format!("From: a@example.org\n{header}\n\nHi\n")).automatic, expected, "{header}");
    }
}

fn outlook() -> String {
    format!(
        "From: a@example.org\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: application/ms-tnef; \
         name=winmail.dat\nContent-Transfer-Encoding: base64\n\n{}\n--b--\n",
        base64(&tnef::tests::sample())
    )
}

fn opaque(streaming: bool) -> String {
    let inner = smime::tests::signed(b"Content-Type: text/plain\r\n\r\nSigned words\r\n", streaming);
    format!(
        "From: a@example.org\nContent-Type: application/pkcs7-mime; smime-type=signed-data; name=smime.p7m\n\
         Content-Transfer-Encoding: base64\n\n{}\n",
        base64(&inner)
    )
}

#[test]
fn wrappers_are_opened() {
    let mail = read_text(&outlook());
    assert_eq!(mail.text, "See the attached results");
    assert_eq!(mail.attachments.len(), 1);
    assert_eq!(mail.attachments[0].name, "résultats de laboratoire.pdf");
    assert_eq!(mail.attachments[0].media_type, "application/pdf");
    for streaming in [false, true] {
        let mail = read_text(&opaque(streaming));
        assert_eq!(mail.text.trim(), "Signed words");
        assert_eq!(mail.remarks, ["This mail is signed (S/MIME); the signature was not checked."]);
    }
}

#[test]
fn encrypted_mail_says_so() {
    let pgp = read_text("From: a@example.org\n\n-----BEGIN PGP MESSAGE-----\n\nhQEM\n-----END PGP MESSAGE-----\n");
    assert_eq!(pgp.remarks, ["This mail is encrypted (PGP) and cannot be read here."]);
    let pgp = read_text(
        "From: a@example.org\nContent-Type: multipart/encrypted; protocol=\"application/pgp-encrypted\"; boundary=b\n\n\
         --b\nContent-Type: application/pgp-encrypted\n\nVersion: 1\n--b\nContent-Type: application/octet-stream\n\nxx\n--b--\n",
    );
    assert_eq!(pgp.remarks, ["This mail is encrypted (PGP) and cannot be read here."]);
    let enveloped = base64(&[0x30, 0x0b, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03]);
    let smime = read_text(&format!(
        "From: a@example.org\nContent-Type: application/pkcs7-mime\nContent-Transfer-Encoding: base64\n\n{enveloped}\n"
    ));
    assert_eq!(smime.remarks, ["This mail is encrypted (S/MIME) and cannot be read here."]);
    assert_eq!(smime.attachments.len(), 1);
}

#[test]
fn wrong_character_sets_are_shown_as_well_as_possible() {
    let mail = read_text("From: a@example.org\nContent-Type: text/plain; charset=x-klingon\n\nHi\n");
    assert_eq!(mail.text, "Hi");
    assert!(mail.remarks[0].contains("unknown character set"), "{:?}", mail.remarks);
    let mail = parse(b"From: a@example.org\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nd\xedas\r\n").unwrap();
    assert!(mail.text.starts_with('d') && mail.remarks[0].contains("could not be read"), "{:?}", mail.remarks);
}

#[test]
fn flowed_text_is_joined_and_quotes_stay() {
    assert_eq!(unflow("a \nb\n\n c", false), "a b\n\nc");
    assert_eq!(unflow("> a \n> b\n>> c\nd", false), "> a b\n>> c\nd");
    assert_eq!(unflow("x \n-- \nname", false), "x \n-- \nname");
    assert_eq!(unflow("日本 \n語", true), "日本語");
    assert_eq!(unflow("a \n> b", false), "a \n> b");
}

#[test]
fn odd_message_ids_are_none() {
    for header in ["", "Message-ID:\n", "Message-ID: <>\n", "Message-ID:   \n"] {
        let mail = read_text(&format!("From: a@example.org\n{header}\nHi\n"));
        assert_eq!(mail.message_id, None, "{header:?}");
    }
}

#[test]
fn names_of_files_are_safe() {
    assert_eq!(file_name("../../etc/passwd"), "passwd");
    assert_eq!(file_name("C:\\x\\y.doc"), "y.doc");
    assert_eq!(file_name(".htaccess"), "htaccess");
    assert_eq!(file_name("a\r\nb\0.txt"), "ab.txt");
    assert!(file_name(&"x".repeat(5_000)).chars().count() <= 150);
    assert!(file_name(&format!("{}.pdf", "x".repeat(5_000))).ends_with(".pdf"));
}

/// What is no mail, or would cost too much, is refused in words; nothing of it is dropped by that.
#[test]
fn bombs_and_rubbish_are_refused_in_time() {
    let started = Instant::now();
    let header = "From: a@example.org\r\n";
    let nested = format!("{header}{}x", "Content-Type: message/rfc822\r\n\r\n".repeat(100_000));
    let digest = format!("{header}{}", "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\n".repeat(5_000));
    let parts =
        format!("{header}Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", "--b\r\n\r\nx\r\n".repeat(100_000));
    let fields = format!("{header}\r\n{}", "a:\r\n".repeat(500_000));
    let long = format!("{header}To: {}x@example.org\r\n\r\nHi", "a@example.org, ".repeat(10_000));
    let folded = format!("{header}\r\n\r\nTo: {}\r\n\r\nHi", "a@example.org,\r\n ".repeat(10_000));
    for (what, bomb) in [
        ("nested", nested),
        ("digest", digest),
        ("parts", parts),
        ("fields", fields),
        ("long", long),
        ("folded", folded),
    ] {
        assert!(parse(bomb.as_bytes()).is_err(), "{what}");
    }
    for rubbish in [&b""[..], b"\r\n\r\n", b"no header at all", &[0; 1000], &[0xff; 1000]] {
        assert!(parse(rubbish).is_err(), "{rubbish:?}");
    }
    // Under the bounds, the work is bounded as well.
    let many = format!(
        "{header}Content-Type: multipart/mixed; boundary=b\r\n\r\n{}",
        "--b\r\nContent-Type: multipart/mixed; boundary=none\r\n\r\nx\r\n".repeat(3_000)
    );
    let _ = parse(many.as_bytes());
    let deep = format!("{header}{}x", "Content-Type: message/rfc822\r\n\r\n".repeat(900));
    let mail = parse(deep.as_bytes()).unwrap();
    assert!(mail.remarks.iter().any(|remark| remark.contains("nested too deeply")), "{:?}", mail.remarks);
    assert!(mail.attachments.len() <= MAX_FILES);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

/// Seeded mutations of a small corpus: bytes changed, cut out, doubled and spliced. None panics, none takes long.
#[test]
fn mutated_mails_never_panic() {
    let corpus: Vec<Vec<u8>> =
        [PLAIN.to_owned(), MIXED.to_owned(), DSN.to_owned(), outlook(), opaque(true)].map(String::into_bytes).into();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below.max(1) as u64) as usize
    };
    let started = Instant::now();
    for round in 0..2_000 {
        let mut bytes = corpus[round % corpus.len()].clone();
        for _ in 0..=random(8) {
            let (at, span) = (random(bytes.len()), random(40));
            let end = (at + span).min(bytes.len());
            match random(6) {
                0 => bytes[at] = random(256) as u8,
                1 => drop(bytes.drain(at..end)),
                2 => bytes.truncate(at.max(1)),
                3 => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece.repeat(random(20)));
                }
                4 => {
                    let other = &corpus[random(corpus.len())];
                    let from = random(other.len());
                    let piece = other[from..(from + span).min(other.len())].to_vec();
                    bytes.splice(at..end, piece);
                }
                _ => bytes[at] = b"\r\n\0-=:;\"<"[random(9)],
            }
            if bytes.is_empty() {
                bytes.push(b'x');
            }
        }
        // A panic inside would be caught and turned into these words; here it must not happen at all.
        if let Err(refused) = parse(&bytes) {
            assert_ne!(refused.what, "This mail could not be read.", "round {round}");
        }
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}
