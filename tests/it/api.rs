//! `/api/v1`, driven as another program would: over a socket, with a token, checked against its own description.

mod conforms;
mod events;
mod office;

use frontdesk::{
    inbox::{NextDue, Outgoing},
    model::{
        address::PhoneNumber,
        health::LineState,
        intake::{RawFormat, RawPart},
        outgoing::{HandOver, Receipt},
        parsed::{Parsed, ParsedFile, ParsedMail, ReportOutcome, StatusReport, Unreadable},
    },
};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use self::{
    events::Events,
    office::{CONSOLE, Office, PATIENT, UNDO_MS, line, mailbox},
};

fn id(value: &Value) -> &str {
    let text = value.as_str().unwrap();
    assert!(text.len() == 26 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'v').contains(&b)), "{text}");
    text
}

async fn code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["status"], status);
    assert_eq!(problem["type"], "about:blank");
    assert!(problem["detail"].as_str().unwrap().ends_with(['.', '”']), "{problem}");
    (status, problem["code"].as_str().unwrap().to_owned())
}

/// A text comes in, is taken, discussed, answered twice because a second one came meanwhile, delivered and resolved.
#[tokio::test]
async fn a_whole_conversation_goes_through_the_api() {
    let office = Office::open().await;
    let me = office.get("/me").await;
    assert_eq!((&me["name"], &me["role"]), (&json!("Maria Reyes"), &json!("front-desk")));
    assert_eq!(me["practice"]["time_zone"], "America/Los_Angeles");
    office.text_arrives(PATIENT, "Can I come on Friday?").await;

    let row = office.only("needs-action").await;
    assert_eq!(row["latest"]["preview"], "Can I come on Friday?");
    assert_eq!(row["contact"]["addresses"], json!([{ "kind": "phone", "value": PATIENT }]));
    assert_eq!(row["waiting_since"], "2027-01-15T08:00:01Z");
    let path = format!("/conversations/{}", id(&row["id"]));
    let opened = office.get(&path).await;
    assert_eq!(opened["entries"][0]["kind"], "inbound");
    assert_eq!(opened["ways"][0]["lines"], json!(["mobile"]));
    assert_eq!(opened["draft"], Value::Null);
    let cursor = opened["cursor"].as_u64().unwrap();

    // Taken by the receptionist herself, then discussed.
    let assigned = office.call("PUT", &format!("{path}/assignee"), json!({ "to": me["id"] })).await;
    assert_eq!(assigned, (204, Value::Null));
    assert_eq!(office.only("mine").await["assignee"], me["id"]);
    let (status, noted) = office.call("POST", &format!("{path}/notes"), json!({ "text": "Friday is full." })).await;
    assert_eq!(status, 201);
    let opened = office.get(&path).await;
    let kinds: Vec<&str> = opened["entries"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["inbound", "event", "note"]);
    assert_eq!(opened["entries"][1]["what"], "assigned");
    assert_eq!(opened["entries"][2]["id"], noted["message"]);
    assert_eq!(opened["cursor"], cursor, "a note is nothing that a reply could have missed");

    // A second text comes before the answer to the first.
    office.text_arrives(PATIENT, "Or Monday?").await;
    let reply = |cursor: u64| json!({ "cursor": cursor, "line": "mobile", "text": "Monday at nine is free." });
    let replies = format!("{path}/replies");
    let (status, problem) = office.call("POST", &replies, reply(cursor)).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("conflict")));
    assert_eq!(office.inbox.next_due(&line("mobile")).await.unwrap(), NextDue::Nothing);
    let cursor = office.get(&path).await["cursor"].as_u64().unwrap();
    let (status, sent) = office.call("POST", &replies, reply(cursor)).await;
    assert_eq!(status, 201);
    let (status, problem) = office.call("POST", &replies, reply(cursor)).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("conflict")), "the same request twice is one reply");

    // Undone in time: the text is a draft again.
    let message = format!("/messages/{}", id(&sent["message"]));
    let last = |opened: &Value| {
        let entries = opened["entries"].as_array().unwrap();
        entries.iter().rfind(|entry| entry["kind"] == "outbound").unwrap().clone()
    };
    let queued = last(&office.get(&path).await);
    assert_eq!((&queued["state"], &queued["state_at"]), (&json!("queued"), &json!("2027-01-15T08:00:12Z")));
    assert_eq!(office.call("POST", &format!("{message}/undo"), Value::Null).await.0, 204);
    let opened = office.get(&path).await;
    assert_eq!(last(&opened)["state"], "cancelled");
    assert_eq!(opened["draft"]["text"], "Monday at nine is free.");
    assert_eq!(opened["draft"]["line"], "mobile");
    let (status, problem) = office.call("POST", &format!("{message}/undo"), Value::Null).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("wrong-state")));

    // Sent again, and this time it leaves and arrives.
    let cursor = opened["cursor"].as_u64().unwrap();
    let (status, sent) = office.call("POST", &replies, reply(cursor)).await;
    assert_eq!(status, 201);
    office.clock.advance_ms(UNDO_MS);
    let (leaving, outgoing) = office.leaves("mobile").await;
    let Outgoing::Text(text) = outgoing else { panic!("a text was answered by something else") };
    assert_eq!((text.to.as_e164(), text.text.as_str()), (PATIENT, "Monday at nine is free."));
    assert_eq!(leaving.to_string(), sent["message"]);
    let (status, problem) = office.call("POST", &format!("/messages/{leaving}/undo"), Value::Null).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("wrong-state")));
    assert!(problem["detail"].as_str().unwrap().contains("already been handed over"), "{problem}");
    let accepted = HandOver::Accepted(Receipt::Text { references: vec![41] });
    office.inbox.end_hand_over(leaving, accepted).await.unwrap();
    assert_eq!(last(&office.get(&path).await)["state"], "sent");
    let report = StatusReport {
        reference: 41,
        recipient: Some(PhoneNumber::from_e164(PATIENT).unwrap()),
        outcome: ReportOutcome::Delivered,
        status: 0,
    };
    let part = RawPart { name: "pdu".into(), bytes: b"report".to_vec() };
    office.arrive("mobile", RawFormat::SmsPdu, vec![part], Ok(Parsed::Report(report))).await;
    let opened = office.get(&path).await;
    assert_eq!(last(&opened)["state"], "delivered");
    assert_eq!(opened["draft"], Value::Null, "a reply uses its draft up");

    // Nobody waits any more; reopened, somebody does.
    assert_eq!(office.get("/conversations").await["conversations"], json!([]));
    assert_eq!(office.call("POST", &format!("{path}/resolve"), Value::Null).await, (200, json!({ "closed": true })));
    assert_eq!(id(&office.only("resolved").await["id"]), id(&row["id"]));
    assert_eq!(office.call("POST", &format!("{path}/reopen"), Value::Null).await.0, 204);
    assert_eq!(office.only("needs-action").await["resolved_at"], Value::Null);
    assert_eq!(office.call("PUT", &format!("{path}/assignee"), json!({ "to": null })).await.0, 204);
    assert_eq!(office.only("unassigned").await["assignee"], Value::Null);
    assert_eq!(office.get("/conversations").await["counts"]["unassigned"], 1);
}

/// A mail with a file is answered with a file, to everybody who was chosen; the server refuses it, and staff give up.
#[tokio::test]
async fn a_mail_is_answered_with_a_file_and_its_failure_is_seen() {
    let office = Office::open().await;
    let file = |name: &str, bytes: &[u8]| ParsedFile {
        name: name.into(),
        media_type: "application/pdf".into(),
        content_id: None,
        bytes: bytes.to_vec(),
    };
    let pdf: Vec<u8> = b"%PDF-1.7 ".iter().copied().cycle().take(600_000).collect();
    office
        .mail_arrives(ParsedMail {
            from: Some(mailbox("ana@example.org", Some("Ana Silva"))),
            to: vec![mailbox("office@example.org", None)],
            cc: vec![mailbox("luis@example.org", Some("Luis Silva")), mailbox("other@example.org", None)],
            subject: "My insurance card".into(),
            message_id: Some("1@example.org".into()),
            text: "Here it is.".into(),
            html: Some("<p>Here it is.</p>".into()),
            attachments: vec![file("Karte \"neu\" ä.pdf", &pdf)],
            ..ParsedMail::default()
        })
        .await;
    let row = office.only("needs-action").await;
    assert_eq!(row["contact"]["name"], "Ana Silva");
    let path = format!("/conversations/{}", id(&row["id"]));
    let opened = office.get(&path).await;
    let entry = &opened["entries"][0];
    assert_eq!((&entry["subject"], &entry["html"]), (&json!("My insurance card"), &json!("<p>Here it is.</p>")));
    assert_eq!(entry["attachments"][0]["bytes"], 600_000);
    let way = &opened["ways"][0];
    assert_eq!((&way["channel"], &way["subject"]), (&json!("mail"), &json!("Re: My insurance card")));
    assert_eq!(
        way["cc"][0],
        json!({ "name": "Luis Silva", "address": { "kind": "email", "value": "luis@example.org" } })
    );

    // The file comes down as it was sent, whole and in parts.
    let url = format!("/attachments/{}", id(&entry["attachments"][0]["id"]));
    let whole = office.ask(Method::GET, &url, &office.desk).send().await.unwrap();
    assert_eq!(whole.headers()["content-type"], "application/pdf");
    let disposition = whole.headers()["content-disposition"].to_str().unwrap();
    assert!(disposition.starts_with("attachment; ") && disposition.ends_with("Karte%20%22neu%22%20%C3%A4.pdf"));
    assert_eq!(whole.headers()["cache-control"], "no-store");
    assert!(whole.bytes().await.unwrap() == pdf);
    let part = office.ask(Method::GET, &url, &office.desk).header("range", "bytes=299999-").send().await.unwrap();
    assert_eq!(part.headers()["content-range"], "bytes 299999-599999/600000");
    assert!(part.bytes().await.unwrap() == pdf[299_999..]);
    let raw = office.ask(Method::GET, &format!("/messages/{}/raw", id(&entry["id"])), &office.desk);
    assert_eq!(raw.send().await.unwrap().text().await.unwrap(), "Here it is.");

    let card: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let reply = json!({
        "cursor": opened["cursor"],
        "line": "office",
        "text": "Thank you. Please sign this.",
        "cc": ["LUIS@example.org"],
        "resolve": true,
        "files": [{
            "name": "form.pdf",
            "media_type": "application/pdf",
            "base64": data_encoding::BASE64.encode(&card),
        }],
    });
    let (status, sent) = office.call("POST", &format!("{path}/replies"), reply).await;
    assert_eq!(status, 201, "{sent}");
    assert_eq!(office.only("resolved").await["id"], row["id"]);
    office.clock.advance_ms(UNDO_MS);
    let (leaving, outgoing) = office.leaves("office").await;
    let Outgoing::Mail(mail) = outgoing else { panic!("a mail was answered by something else") };
    assert_eq!(mail.to, [mailbox("ana@example.org", Some("Ana Silva"))]);
    assert_eq!(mail.cc, [mailbox("luis@example.org", Some("Luis Silva"))]);
    assert_eq!(mail.subject, "Re: My insurance card");
    assert!(mail.attachments.len() == 1 && mail.attachments[0].bytes == card);
    let refused = HandOver::Refused { what: "the mail server does not know this address".into() };
    office.inbox.end_hand_over(leaving, refused).await.unwrap();

    let opened = office.get(&path).await;
    let entry = opened["entries"].as_array().unwrap().iter().rfind(|entry| entry["kind"] == "outbound").unwrap();
    assert_eq!(entry["state"], "failed");
    assert_eq!(entry["attempts"][0]["outcome"], "Not sent: the mail server does not know this address");
    let decision = format!("/messages/{leaving}/decision");
    assert_eq!(office.call("POST", &decision, json!({ "answer": "send-again" })).await.0, 204);
    let (status, problem) = office.call("POST", &decision, json!({ "answer": "it-arrived" })).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("wrong-state")), "it is queued again");
    office.clock.advance_ms(UNDO_MS);
    let (again, _) = office.leaves("office").await;
    assert_eq!(again, leaving);
    office.inbox.end_hand_over(again, HandOver::Unknown { what: "the connection broke".into() }).await.unwrap();
    assert_eq!(office.call("POST", &decision, json!({ "answer": "give-up" })).await.0, 204);
}

/// A voicemail plays from any place in any browser's manner, and what came with it from the PBX is all there.
#[tokio::test]
async fn a_voicemail_plays_from_any_place() {
    let office = Office::open().await;
    let audio: Vec<u8> = (0..700_001u32).map(|n| (n % 251) as u8).collect();
    office.voicemail_arrives(audio.clone()).await;
    let row = office.only("needs-action").await;
    assert_eq!(row["latest"]["preview"], "1:02 voicemail");
    let path = format!("/conversations/{}", id(&row["id"]));
    let entry = office.get(&path).await["entries"][0].clone();
    let voicemail = json!({
        "mailbox": "100@default", "urgent": true, "duration_ms": 61_200, "audio": true, "heard": "no",
    });
    assert_eq!(entry["voicemail"], voicemail);
    let message = format!("/messages/{}", id(&entry["id"]));

    let play = async |range: Option<&str>| {
        let request = office.ask(Method::GET, &format!("{message}/audio"), &office.desk);
        range.into_iter().fold(request, |request, range| request.header("range", range)).send().await.unwrap()
    };
    let whole = play(None).await;
    assert_eq!(whole.status(), StatusCode::OK);
    for (name, value) in [("accept-ranges", "bytes"), ("content-type", "audio/wav"), ("cache-control", "no-store")] {
        assert_eq!(whole.headers()[name], value, "{name}");
    }
    assert!(whole.bytes().await.unwrap() == audio);
    for (range, described, bytes) in [
        ("bytes=0-0", "bytes 0-0/700001", &audio[..1]),
        ("bytes=262143-524289", "bytes 262143-524289/700001", &audio[262_143..524_290]),
        ("bytes=700000-", "bytes 700000-700000/700001", &audio[700_000..]),
        ("bytes=-5", "bytes 699996-700000/700001", &audio[699_996..]),
    ] {
        let part = play(Some(range)).await;
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(part.headers()["content-range"], described, "{range}");
        assert!(part.bytes().await.unwrap() == bytes, "{range}");
    }
    let beyond = play(Some("bytes=700001-")).await;
    assert_eq!(beyond.headers()["content-range"], "bytes */700001");
    assert_eq!(code(beyond).await, (416, "range-not-satisfiable".to_owned()));
    let head = office.ask(Method::HEAD, &format!("{message}/audio"), &office.desk).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(head.headers()["content-length"], "700001");

    let raw = async |query: &str| {
        office.ask(Method::GET, &format!("{message}/raw{query}"), &office.desk).send().await.unwrap()
    };
    assert_eq!(raw("").await.text().await.unwrap(), "[message]\n");
    let second = raw("?part=2").await;
    assert_eq!(second.headers()["content-disposition"], "attachment; filename=\"msg.wav\"; filename*=UTF-8''msg.wav");
    assert!(second.bytes().await.unwrap() == audio);
    for part in ["0", "3"] {
        assert_eq!(code(raw(&format!("?part={part}")).await).await, (404, "not-found".to_owned()), "{part}");
    }

    // Handled here, so that the lamp of the telephone can go out.
    office.call("POST", &format!("{path}/resolve"), Value::Null).await;
    assert_eq!(office.get(&path).await["entries"][0]["voicemail"]["heard"], "here-first");
    let text = office.ask(Method::GET, &format!("/messages/{}/audio", "0".repeat(26)), &office.desk).send().await;
    assert_eq!(code(text.unwrap()).await, (404, "not-found".to_owned()));
}

/// A clinical message is handed on to the nurse; the receptionist sees that there is something and nothing of it.
#[tokio::test]
async fn a_category_decides_who_sees_a_message() {
    let office = Office::open().await;
    office.voicemail_arrives(vec![1; 10]).await;
    office.text_arrives(PATIENT, "My chest hurts since Tuesday").await;
    office.text_arrives(PATIENT, "And I need a new appointment").await;
    let row = office.only("needs-action").await;
    let path = format!("/conversations/{}", id(&row["id"]));
    let entries = office.get(&path).await["entries"].clone();
    let messages: Vec<String> = (0..3).map(|n| format!("/messages/{}", id(&entries[n]["id"]))).collect();
    for hidden in &messages[..2] {
        let set = office.call("PUT", &format!("{hidden}/category"), json!({ "category": "clinical" })).await;
        assert_eq!(set, (204, Value::Null));
    }

    let opened = office.get(&path).await;
    for hidden in 0..2 {
        let entry = opened["entries"][hidden].as_object().unwrap();
        assert_eq!(entry.keys().collect::<Vec<_>>(), ["at", "id", "kind"], "a restricted entry says only that it is");
        assert_eq!(entry["kind"], "restricted");
    }
    assert_eq!(opened["entries"][2]["text"], "And I need a new appointment");
    assert!(!opened.to_string().contains("chest"));
    let denied = Some("denied");
    for (method, path, body) in [
        ("PUT", format!("{}/category", messages[0]), json!({ "category": "other" })),
        ("POST", format!("{}/undo", messages[0]), Value::Null),
        ("POST", format!("{}/decision", messages[0]), json!({ "answer": "give-up" })),
    ] {
        let (status, problem) = office.call(method, &path, body).await;
        assert_eq!((status, problem["code"].as_str()), (403, denied), "{method} {path}");
    }
    for path in [format!("{}/audio", messages[0]), format!("{}/raw", messages[1])] {
        let response = office.ask(Method::GET, &path, &office.desk).send().await.unwrap();
        assert_eq!(code(response).await, (403, "denied".to_owned()), "{path}");
    }
    let (_, seen) = office.call_as(&office.nurse, "GET", &path, None).await;
    assert_eq!(seen["entries"][1]["text"], "My chest hurts since Tuesday");

    // With the last message gone, so is the conversation.
    office.call("PUT", &format!("{}/category", messages[2]), json!({ "category": "refill" })).await;
    assert_eq!(office.get("/conversations").await["conversations"], json!([]));
    assert_eq!(office.call("POST", "/lookups", json!({ "query": PATIENT })).await.1["conversations"], json!([]));
    let unreachable = [
        ("GET", "", Value::Null),
        ("POST", "/replies", json!({ "cursor": 99, "line": "mobile", "text": "x" })),
        ("POST", "/notes", json!({ "text": "x" })),
        ("PUT", "/assignee", json!({ "to": null })),
        ("POST", "/resolve", Value::Null),
        ("POST", "/reopen", Value::Null),
        ("PUT", "/draft", json!({ "text": "x" })),
    ];
    for (method, end, body) in unreachable {
        let (status, problem) = office.call(method, &format!("{path}{end}"), body).await;
        assert_eq!((status, problem["code"].as_str()), (403, denied), "{method} …{end}");
    }
    let (_, list) = office.call_as(&office.nurse, "GET", "/conversations", None).await;
    assert_eq!(list["conversations"][0]["id"], row["id"]);
}

/// Nothing is said to anybody without a good token, and a token ends when it is revoked, expires or its account ends.
#[tokio::test]
async fn only_a_good_token_opens_anything() {
    let office = Office::open().await;
    let document = office.document.clone();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            // Not even whether the id is one, or the body understood.
            let url = format!("{}{}", office.base, path.replace("{id}", "x"));
            let response = office.http.request(method.to_uppercase().parse().unwrap(), url).send().await.unwrap();
            if path == "/openapi.json" {
                assert_eq!(response.status(), StatusCode::OK);
                continue;
            }
            assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"frontdesk\"", "{method} {path}");
            assert_eq!(code(response).await, (401, "unauthenticated".to_owned()), "{method} {path}");
        }
    }
    let refused = async |header: String| {
        let request = office.http.get(format!("{}/me", office.base)).header("authorization", header);
        let response = request.send().await.unwrap();
        let challenge = response.headers()["www-authenticate"].to_str().unwrap().contains("invalid_token");
        (code(response).await.0, challenge)
    };
    let token = &office.desk;
    for (header, named) in [
        (format!("Basic {token}"), false),
        (token.clone(), false),
        ("Bearer".to_owned(), false),
        ("Bearer fd_0000000000000000000000000000000".to_owned(), true),
        (format!("Bearer {}", token.to_uppercase()), true),
        (format!("Bearer {token}{token}"), true),
        ("Bearer \u{e9}".to_owned(), false),
    ] {
        assert_eq!(refused(header.clone()).await, (401, named), "{header:?}");
    }
    let odd = office.http.get(format!("{}/me", office.base)).header("authorization", format!("bearer  {token}"));
    assert_eq!(odd.send().await.unwrap().status(), StatusCode::OK, "the scheme's case does not matter (RFC 9110)");
    let in_url = office.http.get(format!("{}/me?access_token={token}", office.base)).send().await.unwrap();
    assert_eq!(in_url.status(), StatusCode::UNAUTHORIZED, "a URL ends up in logs");

    office.inbox.revoke_token(CONSOLE, office.desk_token).await.unwrap();
    assert_eq!(refused(format!("Bearer {token}")).await, (401, true));
    let (_, token) = office.inbox.make_token(CONSOLE, "short", "maria", 1).await.unwrap();
    assert_eq!(office.call_as(&token, "GET", "/me", None).await.0, StatusCode::OK);
    office.clock.advance_ms(24 * 3600 * 1000 + 1);
    assert_eq!(refused(format!("Bearer {token}")).await, (401, true));
    assert_eq!(office.call_as(&office.nurse, "GET", "/me", None).await.0, StatusCode::OK);
    office.inbox.set_disabled(CONSOLE, "nora", true).await.unwrap();
    assert_eq!(refused(format!("Bearer {}", office.nurse)).await, (401, true));
}

/// Whatever a program gets wrong, it is told what, in the one form that errors have, and nothing happens.
#[tokio::test]
async fn what_cannot_be_is_refused_in_words() {
    let office = Office::open().await;
    office.text_arrives(PATIENT, "Hello").await;
    let row = office.only("needs-action").await;
    let here = format!("/conversations/{}", id(&row["id"]));
    let there = format!("/conversations/{}", "0".repeat(26));
    let message = format!("/messages/{}", id(&row["latest"]["message"]));
    let cursor = office.get(&here).await["cursor"].as_u64().unwrap();
    let before = office.get(&here).await;
    let reply = |changes: &[(&str, Value)]| {
        let mut reply = json!({ "cursor": cursor, "line": "mobile", "text": "Hello" });
        reply.as_object_mut().unwrap().extend(changes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        reply.to_string()
    };
    let file = |name: &str, media_type: &str, base64: &str| {
        reply(&[
            ("line", json!("office")),
            ("files", json!([{ "name": name, "media_type": media_type, "base64": base64 }])),
        ])
    };
    let replies = format!("{here}/replies");
    let json = "application/json";
    #[rustfmt::skip]
    let table: Vec<(&str, String, &str, String, u16, &str, &str)> = vec![
        // What HTTP and JSON do not allow.
        ("POST", "/lookups".into(), json, "{".into(), 400, "malformed", "EOF while parsing"),
        ("POST", "/lookups".into(), json, "".into(), 400, "malformed", "not a JSON object"),
        ("POST", "/lookups".into(), json, "{}}".into(), 422, "invalid", "missing field `query`"),
        ("POST", "/lookups".into(), json, r#"{"query": "a"} x"#.into(), 400, "malformed", "trailing characters"),
        ("POST", "/lookups".into(), json, "\u{feff}{}".into(), 400, "malformed", "not a JSON object"),
        ("POST", "/lookups".into(), json, "[".repeat(60_000), 400, "malformed", "not a JSON object"),
        ("POST", "/lookups".into(), json, format!("{{\"query\": {}", "[".repeat(60_000)), 422, "invalid", "expected a string"),
        ("POST", "/lookups".into(), "text/plain", "{}".into(), 415, "unsupported-media-type", "application/json"),
        ("POST", "/lookups".into(), "application/x-www-form-urlencoded", "query=a".into(), 415, "unsupported-media-type", "JSON"),
        ("POST", "/lookups".into(), "", "{}".into(), 415, "unsupported-media-type", "JSON"),
        ("POST", "/lookups".into(), json, format!("{{\"query\":\"{}\"}}", "a".repeat(65_536)), 413, "too-large", "64 KiB"),
        ("POST", replies.clone(), json, " ".repeat((30 << 20) + 1), 413, "too-large", "30720 KiB"),
        // Properties that are unknown, missing, twice or of another kind; a value is never repeated.
        ("POST", "/lookups".into(), json, r#"{"query": "a", "limit": 5}"#.into(), 422, "invalid", "unknown field `limit`"),
        ("POST", "/lookups".into(), json, r#"{"query": "a", "query": "b"}"#.into(), 422, "invalid", "duplicate field `query`"),
        ("POST", "/lookups".into(), json, r#"{"query": 4155550142}"#.into(), 422, "invalid", "expected a string"),
        ("POST", "/lookups".into(), json, r#"["a"]"#.into(), 400, "malformed", "not a JSON object"),
        ("POST", "/lookups".into(), json, r#"{"query": " "}"#.into(), 422, "invalid", "`query` is"),
        ("POST", replies.clone(), json, reply(&[("cursor", json!("+14155550142"))]), 422, "invalid", "expected u64"),
        ("POST", replies.clone(), json, reply(&[("cursor", json!(-1))]), 422, "invalid", "expected u64"),
        ("POST", replies.clone(), json, r#"{"line": "mobile", "text": "Hello"}"#.into(), 422, "invalid", "missing field `cursor`"),
        ("PUT", format!("{here}/assignee"), json, "{}".into(), 422, "invalid", "missing field `to`"),
        ("PUT", format!("{here}/assignee"), json, r#"{"to": "maria"}"#.into(), 422, "invalid", "26 characters"),
        ("PUT", format!("{here}/assignee"), json, format!("{{\"to\": \"{}\"}}", "0".repeat(26)), 404, "not-found", "no such thing"),
        ("PUT", format!("{message}/category"), json, r#"{"category": "Clinical"}"#.into(), 422, "invalid", "expected one of `uncategorised`"),
        ("POST", format!("{message}/decision"), json, r#"{"answer": "yes"}"#.into(), 422, "invalid", "`it-arrived`"),
        // Replies that cannot be.
        ("POST", replies.clone(), json, reply(&[("text", json!(" \n"))]), 422, "invalid", "Write something"),
        ("POST", replies.clone(), json, reply(&[("text", json!("é".repeat(671)))]), 422, "invalid", "671 of 670"),
        ("POST", replies.clone(), json, reply(&[("line", json!("Mobile 1"))]), 422, "invalid", "`line`"),
        ("POST", replies.clone(), json, reply(&[("line", json!("other"))]), 422, "invalid", "number or address"),
        ("POST", replies.clone(), json, reply(&[("line", json!("desk"))]), 422, "invalid", "number or address"),
        ("POST", replies.clone(), json, reply(&[("line", json!("office"))]), 422, "invalid", "no e-mail address"),
        ("POST", replies.clone(), json, reply(&[("cc", json!(["a@example.org\r\nBcc: b@example.org"]))]), 422, "invalid", "`cc`"),
        ("POST", replies.clone(), json, reply(&[("files", json!([{}]))]), 422, "invalid", "missing field"),
        ("POST", replies.clone(), json, file("a.pdf", "application/pdf", "%%%"), 422, "invalid", "expected base64"),
        ("POST", replies.clone(), json, file("a\r\n.pdf", "application/pdf", "QUJD"), 422, "invalid", "`name`"),
        ("POST", replies.clone(), json, file("", "application/pdf", "QUJD"), 422, "invalid", "`name`"),
        ("POST", replies.clone(), json, file("a.pdf", "application/pdf; x=\"", "QUJD"), 422, "invalid", "`media_type`"),
        ("POST", replies.clone(), json, file("a.pdf", "pdf", "QUJD"), 422, "invalid", "`media_type`"),
        ("POST", replies.clone(), json, reply(&[("files", json!([{ "name": "a", "media_type": "a/b", "base64": "" }]))]), 422, "invalid", "cannot carry files"),
        ("POST", format!("{here}/notes"), json, r#"{"text": ""}"#.into(), 422, "invalid", "Write something"),
        ("POST", format!("{here}/notes"), json, format!("{{\"text\": \"{}\"}}", "x".repeat(20_001)), 422, "invalid", "too long"),
        ("PUT", format!("{here}/draft"), json, r#"{"text": "x", "line": "other"}"#.into(), 422, "invalid", "no such line"),
        ("PUT", format!("{here}/draft"), json, format!("{{\"text\": \"{}\"}}", "x".repeat(100_001)), 422, "invalid", "too long"),
        // What is not there, or cannot be asked for.
        ("GET", there.clone(), "", "".into(), 404, "not-found", "no such thing"),
        ("POST", format!("{there}/notes"), json, r#"{"text": "x"}"#.into(), 404, "not-found", "no such thing"),
        ("GET", "/conversations/1".into(), "", "".into(), 404, "not-found", "26 characters"),
        ("GET", "/conversations/%FF".into(), "", "".into(), 404, "not-found", "UTF-8"),
        ("GET", format!("{message}/audio"), "", "".into(), 404, "not-found", "no such thing"),
        ("POST", format!("{message}/undo"), "", "".into(), 404, "not-found", "no such thing"),
        ("GET", format!("/attachments/{}", "v".repeat(26)), "", "".into(), 404, "not-found", ""),
        ("GET", "/patients".into(), "", "".into(), 404, "not-found", "openapi.json"),
        ("DELETE", here.clone(), "", "".into(), 405, "method-not-allowed", "Allow"),
        ("GET", "/lookups".into(), "", "".into(), 405, "method-not-allowed", "Allow"),
        // Query strings.
        ("GET", "/conversations?view=all".into(), "", "".into(), 400, "malformed", "expected one of `needs-action`"),
        ("GET", "/conversations?limit=ten".into(), "", "".into(), 400, "malformed", "limit"),
        ("GET", "/conversations?limit=0".into(), "", "".into(), 422, "invalid", "1 to 200"),
        ("GET", "/conversations?limit=201".into(), "", "".into(), 422, "invalid", "1 to 200"),
        ("GET", "/conversations?page=2".into(), "", "".into(), 400, "malformed", "unknown field `page`"),
        ("GET", "/conversations?after=x".into(), "", "".into(), 422, "invalid", "`next`"),
        ("GET", format!("{here}?limit=1001"), "", "".into(), 422, "invalid", "1 to 1000"),
        ("GET", format!("{message}/raw?part=-1"), "", "".into(), 400, "malformed", "part"),
        ("GET", "/events?after=x".into(), "", "".into(), 400, "malformed", "after"),
    ];
    for (method, path, media_type, body, status, expected, words) in table {
        let mut request = office.ask(method.parse().unwrap(), &path, &office.desk);
        if !media_type.is_empty() {
            request = request.header("content-type", media_type);
        }
        let shown: String = body.chars().take(60).collect();
        let at = format!("{method} {path} {media_type} {shown}");
        let response = request.body(body).send().await.unwrap_or_else(|error| panic!("{at}: {error}"));
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{at}");
        assert_eq!(response.headers()["cache-control"], "no-store", "{at}");
        assert_eq!(response.headers().contains_key("allow"), status == 405, "{at}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!(
            (problem["status"].as_u64(), problem["code"].as_str()),
            (Some(status.into()), Some(expected)),
            "{at}: {problem}"
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{at}: {detail}");
        assert!(!detail.contains("4155550142"), "{at}: {detail}");
    }
    let mut after = office.get(&here).await;
    after["sequence"] = before["sequence"].clone();
    assert_eq!(after, before, "nothing of that changed anything");
}

/// Whoever follows hears of each change that they may know of, goes on where the line broke, and is cut off with the
/// token.
#[tokio::test]
async fn changes_are_heard_as_they_happen_and_after_a_gap() {
    let office = Office::open().await;
    let start = office.get("/conversations").await["sequence"].as_u64().unwrap();
    office.text_arrives(PATIENT, "One").await;
    let row = office.only("needs-action").await;

    let mut events = Events::open(&office, &format!("/events?after={start}"), None).await;
    let told = events.next().await.unwrap();
    assert_eq!(told.data["conversation"], row["id"]);
    office.text_arrives(PATIENT, "Two").await;
    let told = events.next().await.unwrap();
    assert_eq!(told.data["conversation"], row["id"]);
    assert!(told.data["seq"].as_u64().unwrap() > start);

    // The line breaks, and meanwhile somebody else writes.
    drop(events);
    office.text_arrives("+14155550143", "Three").await;
    let list = office.get("/conversations").await;
    let other = &list["conversations"][1];
    let mut events = Events::open(&office, "/events", Some(&told.id)).await;
    let mut heard = [events.next().await.unwrap(), events.next().await.unwrap()];
    heard.sort_by_key(|event| event.data["conversation"] != row["id"]);
    assert_eq!((&heard[0].data["conversation"], &heard[1].data["conversation"]), (&row["id"], &other["id"]));

    // Where this account may see nothing, it hears that lists may have changed and no more.
    let message = format!("/messages/{}/category", id(&other["latest"]["message"]));
    office.call("PUT", &message, json!({ "category": "clinical" })).await;
    let told = events.next().await.unwrap();
    assert_eq!(told.data.as_object().unwrap().keys().collect::<Vec<_>>(), ["seq"]);

    // A number of another store, or one that is too long ago: everything is to be asked for again.
    let mut lost = Events::open(&office, "/events?after=18446744073709551615", None).await;
    assert_eq!(lost.next().await.unwrap().data["all"], true);

    office.inbox.revoke_token(CONSOLE, office.desk_token).await.unwrap();
    office.text_arrives(PATIENT, "Four").await;
    assert!(events.next().await.is_none(), "a revoked token hears nothing more");
    let again = office.ask(Method::GET, "/events", &office.desk).send().await.unwrap();
    assert_eq!(code(again).await, (401, "unauthenticated".to_owned()));
}

/// Somebody is found by number, address or name in any spelling, and by nothing that only resembles them.
#[tokio::test]
async fn somebody_is_found_by_number_address_or_name() {
    let office = Office::open().await;
    office.voicemail_arrives(vec![1; 10]).await;
    office
        .mail_arrives(ParsedMail {
            from: Some(mailbox("Luis.Silva@example.org", Some("Luis Silva"))),
            subject: "Records".into(),
            text: "Please send them.".into(),
            ..ParsedMail::default()
        })
        .await;
    for (query, names) in [
        ("(415) 555-0142", vec!["Ana Silva"]),
        ("+1 415 555 0142", vec!["Ana Silva"]),
        ("luis.silva@EXAMPLE.org", vec!["Luis Silva"]),
        ("silva", vec!["Luis Silva", "Ana Silva"]),
        ("SILVA, ana", vec!["Ana Silva"]),
        ("Silv", vec![]),
        ("+1 415 555 0199", vec![]),
    ] {
        let (status, found) = office.call("POST", "/lookups", json!({ "query": query })).await;
        assert_eq!(status, 200);
        let found = found["conversations"].as_array().unwrap();
        let found: Vec<&str> = found.iter().map(|row| row["contact"]["name"].as_str().unwrap()).collect();
        assert_eq!(found, names, "{query}");
    }
}

/// A long list comes in pages that overlap nowhere and leave nobody out.
#[tokio::test]
async fn a_long_list_comes_in_pages() {
    let office = Office::open().await;
    for n in 0..7 {
        office.text_arrives(&format!("+1415555010{n}"), "Hello").await;
    }
    for view in ["needs-action", "unassigned"] {
        let (mut ids, mut after) = (Vec::new(), String::new());
        loop {
            let page = office.get(&format!("/conversations?view={view}&limit=3{after}")).await;
            ids.extend(page["conversations"].as_array().unwrap().iter().map(|row| id(&row["id"]).to_owned()));
            assert_eq!(page["counts"]["needs_action"], 7);
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        let whole = office.get(&format!("/conversations?view={view}")).await;
        let whole: Vec<&str> = whole["conversations"].as_array().unwrap().iter().map(|row| id(&row["id"])).collect();
        assert_eq!(ids, whole, "{view}");
        assert_eq!(ids.len(), 7);
    }
}

/// What cannot be read is there all the same, and its bytes can be had.
#[tokio::test]
async fn an_unreadable_mail_is_seen_and_its_bytes_are_there() {
    let office = Office::open().await;
    let parts = vec![RawPart { name: "message.eml".into(), bytes: vec![0xff; 10_000] }];
    office.arrive("office", RawFormat::Rfc5322, parts, Err(Unreadable::new("it has no end"))).await;
    let row = office.only("needs-action").await;
    let opened = office.get(&format!("/conversations/{}", id(&row["id"]))).await;
    let entry = &opened["entries"][0];
    assert_eq!((&entry["unreadable"], &entry["remarks"]), (&json!(true), &json!(["it has no end"])));
    assert_eq!(entry["from"], json!({ "kind": "unknown", "value": null }));
    assert_eq!(opened["ways"], json!([]));
    let raw = office.ask(Method::GET, &format!("/messages/{}/raw", id(&entry["id"])), &office.desk).send().await;
    assert_eq!(raw.unwrap().bytes().await.unwrap(), vec![0xff; 10_000]);
}

/// A draft waits for whoever wrote it, and for nobody else.
#[tokio::test]
async fn a_draft_is_kept_for_its_writer() {
    let office = Office::open().await;
    office.text_arrives(PATIENT, "Hello").await;
    let path = format!("/conversations/{}", id(&office.only("needs-action").await["id"]));
    let draft = json!({ "text": "Dear Ana", "note": "Ask Nora", "line": "office", "cc": ["luis@example.org"] });
    let (status, saved) = office.call("PUT", &format!("{path}/draft"), draft).await;
    assert_eq!(status, 200);
    let kept = office.get(&path).await["draft"].clone();
    let expected = json!({
        "text": "Dear Ana", "note": "Ask Nora", "subject": null, "line": "office", "cc": ["luis@example.org"],
        "saved_at": saved["saved_at"],
    });
    assert_eq!(kept, expected);
    let (_, seen) = office.call_as(&office.nurse, "GET", &path, None).await;
    assert_eq!(seen["draft"], Value::Null);
    assert_eq!(office.call("PUT", &format!("{path}/draft"), json!({})).await.0, 200);
    assert_eq!(office.get(&path).await["draft"], Value::Null);
}

/// A program sees who works here and how each line is, as the inbox shows it.
#[tokio::test]
async fn staff_and_lines_are_told() {
    let office = Office::open().await;
    let staff = office.get("/staff").await;
    assert_eq!(staff["staff"][1]["name"], "Nora Okafor");
    assert_eq!((&staff["staff"][1]["initials"], &staff["staff"][1]["role"]), (&json!("NO"), &json!("nurse")));
    let down = LineState::Down { what: "The modem does not answer. Check its cable.".into() };
    office.inbox.report_health(&line("mobile"), down, None);
    office.inbox.report_health(&line("office"), LineState::Up, Some("2 folders".into()));
    let lines = office.get("/lines").await["lines"].clone();
    let shown: Vec<_> = lines.as_array().unwrap().iter().map(|line| (&line["id"], &line["health"]["state"])).collect();
    assert_eq!(
        shown,
        [(&json!("desk"), &json!("starting")), (&json!("mobile"), &json!("down")), (&json!("office"), &json!("up")),]
    );
    assert_eq!(lines[1]["health"]["what"], "The modem does not answer. Check its cable.");
    assert_eq!(lines[1]["address"], json!({ "kind": "phone", "value": "+14155550100" }));
    assert_eq!((&lines[1]["texts_left_today"], &lines[2]["texts_left_today"]), (&json!(500), &Value::Null));
}
