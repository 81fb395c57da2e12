//! The program as its contractor meets it: commands, exit codes, words, and how the daemon starts and ends.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use frontdesk::{
    clock::Clock,
    demo::{
        modem::Fault,
        pbx::{AudioFile, Call, spoken},
    },
};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use crate::site::{ADDRESS, Site, free_port};

/// EX_CONFIG of sysexits.h: systemd does not try again.
const WRONG_CONFIG: i32 = 78;

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A command fails with this code and says all of this.
fn fails(site: &Site, arguments: &[&str], code: i32, parts: &[&str]) {
    let output = site.try_frontdesk(arguments);
    let words = words(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {words}");
    for part in parts {
        assert!(words.contains(part), "{arguments:?} does not say {part:?}: {words}");
    }
}

/// What `make run` runs: the demo starts from nothing, says where it is and ends when it is asked to.
#[test]
fn the_demo_starts_from_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_frontdesk"))
        .args(["demo", "--listen", &format!("127.0.0.1:{port}"), "--directory"])
        .arg(directory.path().join("demo"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(demo.stdout.take().unwrap());
    let mut lines = said.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains(&format!("is open at https://localhost:{port}"))));
    assert!(lines.any(|line| line.contains("/welcome/")));
    let id = rustix::process::Pid::from_child(&demo);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    lines.for_each(drop);
    assert!(demo.wait().unwrap().success());
}

/// The contractor runs `init` once, starts the daemon, and browsers are answered over TLS by the practice's own CA.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_practice_is_made_and_served() {
    let mut site = Site::new().await;
    let key = site.path().join("credentials/kek");
    let said = site.frontdesk(&["init", "--admin", "contractor"]);
    for part in ["https://localhost:", "/welcome/", "SHA-256 fingerprint", "Recovery key of Test practice"] {
        assert!(said.contains(part), "{said}");
    }
    for file in [key.clone(), site.state().join("keyring"), site.state().join("keyslots")] {
        assert_eq!(mode(&file), 0o600);
    }
    fails(&site, &["init", "--admin", "contractor"], 1, &["credentials/kek exists"]);
    // Nor does a lost key make way for one that opens nothing.
    fs::rename(&key, site.path().join("kept")).unwrap();
    fails(&site, &["init", "--admin", "contractor"], 1, &["state/keyslots exists", "could not open them"]);
    fs::rename(site.path().join("kept"), &key).unwrap();

    site.start_daemon().await;
    assert!(site.is_healthy().await);
    assert_eq!(mode(&site.path().join("admin.sock")), 0o600);
    assert!(site.stop().success());
    assert!(!site.is_healthy().await);
}

/// An `init` that failed can be run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_init_leaves_nothing_in_the_way() {
    let site = Site::new().await;
    fails(&site, &["init", "--admin", "Dr. No"], 1, &["log-in name"]);
    assert!(!site.path().join("credentials/kek").exists());
    site.frontdesk(&["init", "--admin", "contractor"]);
}

/// A wrong configuration is known before anything starts: file, key, what was found, what is allowed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_configuration_is_named_and_nothing_starts() {
    let site = Site::new().await;
    let right = fs::read_to_string(site.config_path()).unwrap();
    assert!(site.frontdesk(&["check-config"]).contains("is right"));
    let table: &[(&str, &str, &[&str])] = &[
        ("undo_s = 0", "undo_s = 31", &["web.undo_s", "31", "0 to 30"]),
        ("undo_s = 0", "undo_seconds = 0", &["undo_seconds"]),
        ("America/New_York", "America/Atlantis", &["practice.time_zone", "Atlantis", "America/New_York"]),
        ("country = \"US\"", "country = \"Utopia\"", &["practice.country", "Utopia", "ISO 3166"]),
        ("listen = \"127", "listen = \"nowhere 127", &["web.listen"]),
        ("per_minute = 600", "per_minute = 0", &["sms[0].per_minute", "0 a minute", "1 to 600"]),
        ("number = \"+14155550100\"", "number = \"reception\"", &["sms[0].number", "reception", "+14155550142"]),
        ("boxes = [{ mailbox = \"100\" }]", "boxes = []", &["voicemail[0].boxes", "none", "at least one"]),
        ("boxes = [{ mailbox = \"100\" }]", "boxes = [{ mailbox = \"../1\" }]", &["A-Z"]),
        (
            "id = \"sms\"\nlocation = \"main\"",
            "id = \"sms\"\nlocation = \"annexe\"",
            &["sms \"sms\".location", "annexe", "[[location]]"],
        ),
        ("id = \"phone\"", "id = \"sms\"", &["voicemail.id", "sms", "an id of its own"]),
        ("address = \"frontdesk@example.org\"", "address = \"frontdesk\"", &["mail[0].address", "name@domain"]),
        (
            "acknowledge = { flag = \"\\\\Seen\" }",
            "acknowledge = { flag = \"\\\\Deleted\" }",
            &["mail[0].imap", "acknowledge"],
        ),
        ("[practice]", "[practice", &["frontdesk.toml"]),
    ];
    for (old, new, parts) in table {
        assert!(right.contains(old), "{old}");
        fs::write(site.config_path(), right.replacen(old, new, 1)).unwrap();
        for command in ["check-config", "serve"] {
            fails(&site, &[command], WRONG_CONFIG, &[&["frontdesk.toml"], *parts].concat());
        }
        fails(&site, &["doctor"], 1, &["BAD", parts[0]]);
    }
    fs::remove_file(site.config_path()).unwrap();
    fails(&site, &["serve"], WRONG_CONFIG, &["frontdesk.toml: cannot be read"]);
    assert!(!site.state().exists(), "nothing was made");
}

/// Keys and passwords that are missing or open to others stop the start, and the words say what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_missing_or_open_to_others() {
    let site = Site::new().await;
    fails(&site, &["serve"], WRONG_CONFIG, &["no key slots", "frontdesk init"]);
    site.frontdesk(&["init", "--admin", "contractor"]);
    let key = site.path().join("credentials/kek");

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    fails(&site, &["serve"], WRONG_CONFIG, &["readable by others (mode 644)", "chmod 0600"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    let password = site.path().join("credentials/mail");
    fs::set_permissions(&password, fs::Permissions::from_mode(0o640)).unwrap();
    fails(&site, &["serve"], WRONG_CONFIG, &["credentials/mail", "chmod 0600"]);
    fs::remove_file(&password).unwrap();
    fails(&site, &["serve"], WRONG_CONFIG, &["the credential \"mail\" is missing", "mode 0600"]);
}

/// A second daemon on the same records does not start, and the first goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_daemon_at_a_time() {
    let site = Site::start().await;
    fails(&site, &["serve"], 1, &["another process uses the store"]);
    assert!(site.is_healthy().await);
    site.frontdesk(&["user", "list"]);
}

/// On SIGTERM the daemon ends within ten seconds and without complaint, whatever it is waiting for; what it was handing
/// over is in staff's hands afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_drains_in_ten_seconds_even_in_mid_send() {
    let mut site = Site::start().await;
    site.world.modem.deliver("+14155550142", "Can you call me?");
    site.until("the text to arrive", async |site: &Site| !site.conversations().await.is_empty()).await;
    let id = site.conversations().await[0]["id"].clone();
    let path = format!("/conversations/{}", id.as_str().unwrap());
    let began = Instant::now();
    assert!(site.stop().success());
    assert!(began.elapsed() < Duration::from_secs(5), "nothing was going on");

    site.start_daemon().await;
    site.world.modem.fail(Fault::SilentAfterCtrlZ);
    let cursor = site.get(&path).await["cursor"].clone();
    site.post(&format!("{path}/replies"), json!({ "cursor": cursor, "line": "sms", "text": "Yes" })).await;
    assert_eq!(site.world.modem.next_sent().await.text, "Yes");
    let began = Instant::now();
    assert!(site.stop().success());
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(!site.path().join("admin.sock").exists() || !site.is_healthy().await);

    site.start_daemon().await;
    let entries = site.entries_of(&id).await;
    let answer = entries.iter().find(|entry| entry["kind"] == "outbound").expect("it is there");
    assert_eq!(answer["state"], "unconfirmed");
    assert_eq!(site.world.modem.parts_sent(), 1);
}

/// `doctor` says of each line that it works, from the running daemon and without one, and changes nothing by asking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_finds_everything_well() {
    let mut site = Site::start().await;
    let is_well = async |site: &Site| {
        let said = words(&site.try_frontdesk(&["doctor"]));
        ["mail: works since", "sms: works since", "phone: works since"].iter().all(|part| said.contains(part))
    };
    site.until("all lines to work", is_well).await;
    let said = words(&site.try_frontdesk(&["doctor"]));
    for part in
        ["configuration: ", "credentials/kek opens key slot 1", "daemon: runs", "store: writes", "signal -71 dBm"]
    {
        assert!(said.lines().any(|line| line.starts_with("ok") && line.contains(part)), "{part}: {said}");
    }
    // All that is to be mended: a key in a file is not safe against a thief, and nobody is told when something breaks.
    let bad: Vec<&str> = said.lines().filter(|line| line.starts_with("BAD")).collect();
    assert!(bad.len() == 2 && bad[0].contains("stolen disk") && bad[1].contains("[alerts]"), "{said}");
    assert!(site.stop().success());

    // Something waits at each source, and stays as it is.
    let now = Clock::system().now();
    let mail = format!("From: <a@example.org>\r\nTo: <{ADDRESS}>\r\nSubject: Hello\r\n\r\nHello\r\n");
    let uid = site.world.mail.deliver("INBOX", mail, now);
    site.world.modem.deliver("+14155550142", "Hello");
    let audio = vec![AudioFile::ulaw(&spoken(1, 1.0))];
    let call = Call { mailbox: "100", caller_id: "anonymous", began: now, urgent: false, audio, with_msg_id: true };
    let msg_id = site.world.pbx.leave(&call).await.unwrap().unwrap();
    let said = words(&site.try_frontdesk(&["doctor"]));
    for part in ["mail server reached, INBOX holds 1 messages", "takes our log-in", "Simulated answers", "AMI answers"]
    {
        assert!(said.lines().any(|line| line.starts_with("ok") && line.contains(part)), "{part}: {said}");
    }
    assert!(said.contains("BAD  daemon: the daemon does not answer"), "{said}");
    assert_eq!(site.world.mail.flags("INBOX", uid), Some(Vec::new()));
    assert_eq!(site.world.modem.stored_and_waiting(), (1, 0));
    assert!(!site.world.modem.any_read(), "a look at the modem is no reading");
    assert_eq!(site.world.pbx.place_of(&msg_id).unwrap().0, "INBOX");
}

/// With every peer away the daemon still serves, and `doctor` says in words what is wrong with each line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_says_what_is_wrong() {
    let mut site = Site::new().await;
    // Nobody listens on port 9 of loopback.
    for (port, key) in [(site.world.mail.port(), "port = "), (site.world.submission.port(), "port = ")] {
        site.change_config(&format!("{key}{port}"), "port = 9");
    }
    site.world.pbx.set_manager_up(false);
    site.world.modem.unplug();
    site.begin().await;
    let is_known = async |site: &Site| {
        let said = words(&site.try_frontdesk(&["doctor"]));
        ["mail: down", "sms: down", "phone: down"].iter().all(|part| said.contains(part))
    };
    site.until("all lines to be away", is_known).await;
    fails(&site, &["doctor"], 1, &["daemon: runs", "no serial port at", "cannot be reached"]);
    assert!(site.is_healthy().await, "the inbox is there for what came before");
    assert!(site.stop().success());
    fails(
        &site,
        &["doctor"],
        1,
        &["BAD  mail: ", "BAD  mail: sending: ", "BAD  sms: no serial port at", "BAD  phone: AMI"],
    );
}

/// Accounts and tokens are made by commands, wrong input is refused with words, and what was taken away ends at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_and_tokens_come_and_go() {
    let mut site = Site::start().await;
    let link = site.frontdesk(&["user", "add", "nina", "--name", "Nina Berg", "--role", "nurse"]);
    assert!(link.contains("https://localhost:") && link.contains("/welcome/") && link.contains("three days"), "{link}");
    let again = site.frontdesk(&["user", "link", "nina"]);
    assert!(again.contains("/welcome/") && again != link);
    let users = site.frontdesk(&["user", "list"]);
    assert!(users.contains("nina\tNina Berg\tnurse\tno password yet"), "{users}");

    let add = |login: &str, role: &str| {
        let output = site.try_frontdesk(&["user", "add", login, "--name", "Somebody", "--role", role]);
        (output.status.code(), words(&output))
    };
    let (code, said) = add("otto", "dentist");
    assert!(code == Some(2) && said.contains("front-desk, nurse, manager, administrator"), "{said}");
    for login in ["x", "nina berg", "nina/berg"] {
        let (code, said) = add(login, "nurse");
        assert!(code == Some(1) && said.contains("2 to 32 of a-z"), "{login}: {said}");
    }
    let (code, said) = add("nina", "nurse");
    assert!(code == Some(1) && said.contains("taken"), "{said}");
    fails(&site, &["user", "link", "nobody"], 1, &["no such account"]);
    fails(&site, &["token", "create", "nobody"], 1, &["no such account"]);
    fails(&site, &["token", "create", "nina", "--days", "0"], 1, &["1 to 366"]);
    fails(&site, &["token", "revoke", "nonsense"], 1, &["no such account or token"]);

    let me = async |site: &Site, token: &str| site.api_as(token, Method::GET, "/me", None).await.unwrap();
    let token = site.make_token("nina");
    let (status, known) = me(&site, &token).await;
    assert_eq!((status, &known["role"]), (StatusCode::OK, &json!("nurse")));
    let tokens = site.frontdesk(&["token", "list"]);
    let row = tokens.lines().find(|row| row.contains("nina")).expect("it is listed");
    assert!(!tokens.contains(&token), "a token is shown once");
    site.frontdesk(&["token", "revoke", row.split('\t').next().unwrap()]);
    assert_eq!(me(&site, &token).await.0, StatusCode::UNAUTHORIZED);

    let token = site.make_token("nina");
    site.frontdesk(&["user", "disable", "nina"]);
    assert_eq!(me(&site, &token).await.0, StatusCode::UNAUTHORIZED);
    assert!(site.frontdesk(&["user", "list"]).contains("nina\tNina Berg\tnurse\tdisabled"));
    site.frontdesk(&["user", "enable", "nina"]);
    assert_eq!(me(&site, &token).await.0, StatusCode::UNAUTHORIZED, "tokens do not come back");

    assert!(site.stop().success());
    fails(&site, &["user", "list"], 1, &["does not answer", "admin.sock", "systemctl status frontdesk"]);
}
