//! A server that keeps no key: after a restart it is sealed until somebody gives the words.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use frontdesk::{clock::Clock, demo::modem};
use reqwest::{Client, Method, Response, StatusCode, redirect::Policy};

use crate::site::{ADDRESS, Site};

pub const WORDS: &str = "correct horse battery staple";
const WRONG: &str = "incorrect horse battery staple";

fn credential(site: &Site) -> PathBuf {
    site.path().join("credentials/kek")
}

/// Runs a command, types a line, and gives whether it succeeded and what it said.
pub fn typing(site: &Site, arguments: &[&str], typed: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_frontdesk"));
    command.args(arguments).arg("--config").arg(site.config_path());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may have refused before it asked.
    let _ = child.stdin.take().unwrap().write_all(format!("{typed}\n").as_bytes());
    let output = tokio::task::block_in_place(|| child.wait_with_output()).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

/// A browser on the practice's network that trusts its authority and follows no redirects by itself.
fn browser(site: &Site) -> Client {
    let ca = reqwest::Certificate::from_pem(&fs::read(site.state().join("tls/ca.pem")).unwrap()).unwrap();
    Client::builder().tls_certs_only([ca]).redirect(Policy::none()).build().unwrap()
}

async fn get(site: &Site, browser: &Client, path: &str) -> Response {
    browser.get(site.url(path)).header("sec-fetch-mode", "navigate").send().await.unwrap()
}

async fn give(site: &Site, browser: &Client, words: &str) -> Response {
    let origin = site.url("");
    let form = [("words", words), ("next", "/inbox/mine")];
    browser.post(site.url("/unseal")).header("origin", origin).form(&form).send().await.unwrap()
}

fn leads_to(answer: &Response) -> (StatusCode, &str) {
    (answer.status(), answer.headers()["location"].to_str().unwrap())
}

/// Whether `/healthz` says that it is sealed.
pub async fn is_sealed(site: &Site) -> bool {
    match browser(site).get(site.url("/healthz")).send().await {
        Ok(answer) => {
            answer.status() == StatusCode::SERVICE_UNAVAILABLE && answer.text().await.is_ok_and(|word| word == "sealed")
        }
        Err(_) => false,
    }
}

/// A new practice that keeps no key on its server.
pub fn init_with_passphrase(site: &Site) {
    let (done, said) = typing(site, &["init", "--admin", "contractor", "--passphrase"], WORDS);
    assert!(done, "{said}");
}

/// A practice whose key is gone from the machine, started anew.
pub async fn sealed_site(site: &mut Site) {
    let (done, said) = typing(site, &["key", "add", "--passphrase"], WORDS);
    assert!(done, "{said}");
    assert!(site.stop().success());
    fs::remove_file(credential(site)).unwrap();
    site.spawn_daemon();
    site.until("the daemon to be sealed", async |site: &Site| is_sealed(site).await).await;
}

/// The texts of all conversations.
async fn texts(site: &Site) -> Vec<String> {
    let mut texts: Vec<String> =
        site.entries().await.iter().filter_map(|entry| entry["text"].as_str().map(str::to_owned)).collect();
    texts.sort();
    texts
}

/// While sealed, texts come off the SIM and everything else waits; after the words all is there, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_come_in_while_the_store_is_sealed() {
    let mut site = Site::start().await;
    sealed_site(&mut site).await;

    let (status, problem) = site.api(Method::GET, "/conversations?view=unassigned", None).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some("not-open")));
    let (done, said) = typing(&site, &["user", "list"], "");
    assert!(!done && said.contains("the store is sealed: run `frontdesk unseal`"), "{said}");
    let (done, said) = typing(&site, &["doctor"], "");
    assert!(!done && said.contains("Sealed: needs a passphrase or the recovery key"), "{said}");

    let letter = format!("From: <a@example.org>\r\nTo: <{ADDRESS}>\r\nSubject: Hello\r\n\r\nA letter\r\n");
    let uid = site.world.mail.deliver("INBOX", letter, Clock::system().now());
    site.world.modem.deliver("+14155550142", "Canary before the power cut");
    let is_taken = async |site: &Site| site.world.modem.stored_and_waiting() == (0, 0);
    site.until("the text to be taken off the SIM", is_taken).await;
    // A power cut in between, and another text.
    site.kill();
    site.world.modem.deliver("+14155550142", "After the power cut");
    site.spawn_daemon();
    site.until("the second text to be taken off the SIM", is_taken).await;
    let waiting: Vec<_> = fs::read_dir(site.state().join("intake")).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(waiting.len(), 2, "{waiting:?}");
    assert!(waiting.iter().all(|path| !String::from_utf8_lossy(&fs::read(path).unwrap()).contains("Canary")));
    assert_eq!(site.world.mail.flags("INBOX", uid), Some(Vec::new()), "mail waits at its server");

    let (done, said) = typing(&site, &["unseal"], WRONG);
    assert!(!done && said.contains("opens no keyslot") && !said.contains(WRONG), "{said}");
    let (done, said) = typing(&site, &["unseal"], WORDS);
    assert!(done && said.contains("the records are being opened"), "{said}");
    site.until("the inbox to open", async |site: &Site| site.is_healthy().await).await;
    let all = async |site: &Site| texts(site).await.len() >= 3;
    site.until("everything to be in the inbox", all).await;
    site.world.modem.deliver("+14155550142", "Now that it is open");
    site.until("the line to work as ever", async |site: &Site| texts(site).await.len() >= 4).await;
    let texts = texts(&site).await;
    let expected = ["A letter", "After the power cut", "Canary before the power cut", "Now that it is open"];
    assert_eq!(texts.iter().map(|text| text.trim()).collect::<Vec<_>>(), expected);
    assert_eq!(fs::read_dir(site.state().join("intake")).unwrap().count(), 0);

    let (done, said) = typing(&site, &["unseal"], WORDS);
    assert!(!done && said.contains("open already"), "{said}");
    assert!(!site.log().contains(WORDS) && !site.log().contains(WRONG));
    assert!(site.stop().success());
}

/// The start page takes the place of every page, is protected like all others, makes who guesses wait, and leads on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_unseals_the_store() {
    let mut site = Site::start().await;
    sealed_site(&mut site).await;
    let browser = browser(&site);
    for path in ["/", "/inbox/mine", "/login?next=/", "/unseal", "/nowhere"] {
        let answer = get(&site, &browser, path).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        for (name, value) in [("cache-control", "no-store"), ("retry-after", "30"), ("x-frame-options", "DENY")] {
            assert_eq!(answer.headers()[name], value, "{path}");
        }
        assert!(answer.headers()["content-security-policy"].to_str().unwrap().contains("script-src 'self'"));
        let page = answer.text().await.unwrap();
        assert!(page.contains("The records are sealed") && page.contains("Test practice"), "{path}");
    }
    assert_eq!(get(&site, &browser, "/assets/app.css").await.status(), StatusCode::OK);

    let foreign = browser.post(site.url("/unseal")).header("origin", "https://evil.example").form(&[("words", WORDS)]);
    assert_eq!(foreign.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    assert!(is_sealed(&site).await);
    for _ in 0..5 {
        let answer = give(&site, &browser, WRONG).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        let page = answer.text().await.unwrap();
        assert!(page.contains("does not open the records") && !page.contains(WRONG), "{page}");
    }
    let answer = give(&site, &browser, WORDS).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((50..=60).contains(&wait), "{wait}");

    // Somebody at the server need not wait for that.
    let (done, said) = typing(&site, &["unseal"], WORDS);
    assert!(done, "{said}");
    site.until("the inbox to open", async |site: &Site| site.is_healthy().await).await;
    let answer = get(&site, &browser, "/inbox/mine").await;
    assert_eq!(leads_to(&answer), (StatusCode::SEE_OTHER, "/login?next=/inbox/mine"));
    let answer = give(&site, &browser, WORDS).await;
    assert_eq!(leads_to(&answer), (StatusCode::SEE_OTHER, "/"));
}

/// A credential that is damaged, or belongs elsewhere, is no end either: the recovery key still opens the records.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recovery_key_helps_where_the_credential_is_wrong() {
    let mut site = Site::new().await;
    let sheet = site.frontdesk(&["init", "--admin", "contractor"]);
    let rows = sheet.lines().filter(|line| line.trim_start().starts_with("groups "));
    let key: String = rows.filter_map(|row| row.split_whitespace().last()).collect();
    for (content, reason) in [("not a key", "does not hold a key"), (&"00".repeat(32), "opens none of the key slots")] {
        fs::write(credential(&site), content).unwrap();
        site.spawn_daemon();
        site.until("the daemon to be sealed", async |site: &Site| is_sealed(site).await).await;
        assert!(site.log().contains(reason), "{}", site.log());
        let (done, said) = typing(&site, &["unseal"], &key.replacen(|c: char| c.is_ascii_digit(), "Z", 1));
        assert!(!done && said.contains("is mistyped"), "{said}");
        let (done, said) = typing(&site, &["unseal"], &key.to_lowercase());
        assert!(done, "{said}");
        site.until("the inbox to open", async |site: &Site| site.is_healthy().await).await;
        assert!(site.stop().success());
    }
}

/// A PIN that must not be tried twice is not tried while nobody can tell whether it was; the line says so and waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_sim_waits_for_the_unsealing() {
    let mut site = Site::new().await;
    let outside = site.path().join("outside/locked");
    fs::create_dir(&outside).unwrap();
    let old = site.world.modem.path().display().to_string();
    let options = modem::Options { pin: Some("4711".to_owned()), ..modem::Options::default() };
    site.world.modem = modem::SimulatedModem::start_with(&outside, options).unwrap();
    site.change_config(&old, &site.world.modem.path().display().to_string());
    fs::write(site.path().join("credentials/sim"), "4711").unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(site.path().join("credentials/sim"), private).unwrap();
    site.change_config("per_minute = 600", "pin_credential = \"sim\"\nper_minute = 600");
    init_with_passphrase(&site);
    site.spawn_daemon();
    // Without a daemon, doctor would open the modem itself.
    site.until("the daemon to be sealed", async |site: &Site| is_sealed(site).await).await;
    let waits =
        async |site: &Site| typing(site, &["doctor"], "").1.contains("sms: down: the SIM wants its PIN, which waits");
    site.until("the line to say that the PIN waits", waits).await;
    assert_eq!(site.world.modem.pins_tried(), 0);
    let (done, said) = typing(&site, &["unseal"], WORDS);
    assert!(done, "{said}");
    site.until("the PIN to be tried", async |site: &Site| site.world.modem.pins_tried() == 1).await;
}

/// A daemon that is told to stop while it is sealed ends at once, and the next one is sealed again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_daemon_stops_in_good_order() {
    let mut site = Site::start().await;
    sealed_site(&mut site).await;
    assert!(site.stop().success());
    site.spawn_daemon();
    site.until("the daemon to be sealed again", async |site: &Site| is_sealed(site).await).await;
}

/// Nobody has to look at a page to learn that the store is sealed: the contractor gets a mail, or a text where mail does
/// not go out, one more when it is over, and no second one of either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contractor_is_told_that_somebody_has_to_unseal() {
    let mut site = Site::new().await;
    let alerts = "[alerts]\nmail = \"it@example.net\"\nsms = \"+14155550199\"\nafter_s = 1\n[[mail]]";
    site.change_config("[[mail]]", alerts);
    init_with_passphrase(&site);
    site.spawn_daemon();
    let told = async |site: &Site| String::from_utf8_lossy(&site.world.submission.next_mail().await.raw).into_owned();
    let mail = told(&site).await.replace("=\r\n", "");
    for part in
        ["Subject: Frontdesk at Test practice: something is broken", "The records are sealed", "`frontdesk unseal`"]
    {
        assert!(mail.contains(part), "{part} is missing in\n{mail}");
    }
    let (done, said) = typing(&site, &["unseal"], WORDS);
    assert!(done, "{said}");
    site.until("the inbox to open", async |site: &Site| site.is_healthy().await).await;
    let mail = told(&site).await;
    assert!(mail.contains("Frontdesk at Test practice: works again"), "{mail}");

    // The mail server is away.
    assert!(site.stop().success());
    site.change_config(&format!("port = {}", site.world.submission.port()), "port = 1");
    site.spawn_daemon();
    let text = site.world.modem.next_sent().await;
    assert_eq!(text.to, "+14155550199");
    assert!(text.text.contains("The records are sealed"), "{}", text.text);
}
