//! How the program says how it is, on the real binary: the Health page's report, alerts, and a disk that runs full.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use frontdesk::{
    clock::Clock,
    demo::{
        patients::{Letter, PATIENTS},
        pbx::{AudioFile, Call, spoken},
    },
};
use reqwest::{Client, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::site::{ADDRESS, PATIENCE, Site};

const CONTRACTOR: &str = "it@example.net";
const CONTRACTOR_PHONE: &str = "+14155550199";
const MIB: u64 = 1 << 20;

/// A line breaks: the contractor gets a mail that names it and nobody else; when it works again, they get one more. Mail
/// that does not go out becomes a text. None of it is a conversation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contractor_is_told_what_broke_and_that_it_is_over() {
    let mut site = Site::new().await;
    let alerts = format!("[alerts]\nmail = \"{CONTRACTOR}\"\nsms = \"{CONTRACTOR_PHONE}\"\nafter_s = 1\n[[mail]]");
    site.change_config("[[mail]]", &alerts);
    site.begin().await;
    site.until("all lines to work", all_lines_work).await;

    site.world.modem.unplug();
    let mail = site.world.submission.next_mail().await;
    let text = String::from_utf8_lossy(&mail.raw).replace("=\r\n", "");
    assert_eq!((mail.from.as_str(), mail.recipients.as_slice()), (ADDRESS, [CONTRACTOR.to_owned()].as_slice()));
    for part in ["Frontdesk at Test practice: something is broken", "(sms)", "/health", "Auto-Submitted: "] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    // A restart tells nothing twice: what comes next is the end.
    assert!(site.stop().success());
    site.start_daemon().await;
    site.world.modem.plug_in().unwrap();
    let mail = site.world.submission.next_mail().await;
    let text = String::from_utf8_lossy(&mail.raw);
    assert!(text.contains("Frontdesk at Test practice: works again"), "{text}");

    // The mail server is away, and with it both ways of mail.
    site.until("all lines to work", all_lines_work).await;
    assert!(site.stop().success());
    let config = fs::read_to_string(site.config_path()).unwrap();
    let away = config
        .replace(&format!("port = {}", site.world.mail.port()), "port = 1")
        .replace(&format!("port = {}", site.world.submission.port()), "port = 1");
    fs::write(site.config_path(), away).unwrap();
    site.start_daemon().await;
    let told = site.world.modem.next_sent().await;
    assert_eq!(told.to, CONTRACTOR_PHONE);
    assert!(told.text.contains("something is broken") && told.text.contains("(mail)"), "{}", told.text);
    assert!(told.text.is_ascii(), "{}", told.text);
    assert!(site.stop().success());
    fs::write(site.config_path(), config).unwrap();
    site.start_daemon().await;
    let mail = site.world.submission.next_mail().await;
    assert!(String::from_utf8_lossy(&mail.raw).contains("works again"));
    assert_eq!(site.conversations().await, Vec::<Value>::new());
}

async fn all_lines_work(site: &Site) -> bool {
    let lines = site.get("/lines").await;
    lines["lines"].as_array().expect("lines").iter().all(|line| line["health"]["state"] == "up")
}

/// `/healthz` is for anybody, in one word; `/metrics` for this machine or a token; the Health page for who is logged in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_told_to_monitors_in_words_and_numbers() {
    let mut site = Site::new().await;
    site.begin().await;
    let client = anybody();
    let get = async |path: &str| client.get(site.url(path)).send().await.unwrap();
    site.until("all to be well", async |site: &Site| {
        let lines = site.get("/lines").await;
        lines["lines"].as_array().unwrap().iter().all(|line| line["health"]["state"] == "up")
            && client.get(site.url("/healthz")).send().await.unwrap().text().await.unwrap() == "ok"
    })
    .await;
    let metrics = get("/metrics").await;
    let kind = metrics.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    assert_eq!((metrics.status(), kind.as_str()), (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8"));
    let text = metrics.text().await.unwrap();
    for line in ["frontdesk_line_up{line=\"sms\",channel=\"sms\"} 1", "frontdesk_health{state=\"ok\"} 1"] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains('@') && !text.contains("+1415"), "nothing personal:\n{text}");

    site.world.modem.unplug();
    site.until("the fault to be seen", async |site: &Site| {
        client.get(site.url("/healthz")).send().await.unwrap().text().await.unwrap() == "degraded"
    })
    .await;
    assert_eq!(get("/healthz").await.status(), StatusCode::OK);
    let page = get("/health").await;
    assert_eq!(page.url().path(), "/login");
    let said = site.try_frontdesk(&["doctor"]);
    let said = String::from_utf8_lossy(&said.stdout);
    assert!(said.contains("BAD  sms: down since") && said.contains("the store takes"), "{said}");
    assert!(site.frontdesk(&["clock", "confirm"]).contains("not in doubt"));
}

/// Somebody who does not check certificates and has no token.
fn anybody() -> Client {
    Client::builder().tls_danger_accept_invalid_certs(true).timeout(PATIENCE).build().unwrap()
}

/// A small disk of its own for the store: a tmpfs in a mount namespace that a process keeps.
struct SmallDisk {
    keeper: Child,
    place: PathBuf,
}

impl SmallDisk {
    /// Mounts it over the store's directory and lets everything of the site run where it is seen. Where the tests do not
    /// run as root, the namespace has a root of its own.
    fn mount(site: &mut Site, mib: u64) -> Self {
        let place = site.path().join("state");
        fs::create_dir_all(&place).unwrap();
        let is_root = rustix::process::geteuid().is_root();
        let script = format!(
            "mount -t tmpfs -o size={mib}m,mode=700 tmpfs {} && echo ready && exec sleep infinity",
            place.display()
        );
        let mut unshare = Command::new("unshare");
        unshare.args(if is_root { &["--mount"][..] } else { &["--user", "--map-root-user", "--mount"] });
        let mut keeper =
            unshare.args(["sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 6];
        std::io::Read::read_exact(keeper.stdout.as_mut().unwrap(), &mut said).expect("the disk is mounted");
        let pid = keeper.id();
        let enter = if is_root { "nsenter --mount" } else { "nsenter --user --preserve-credentials --mount" };
        site.wrapper = enter.split(' ').map(str::to_owned).chain([format!("--target={pid}")]).collect();
        site.root = PathBuf::from(format!("/proc/{pid}/root"));
        let place = site.root.join(place.strip_prefix("/").unwrap());
        Self { keeper, place }
    }

    fn free(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.place).unwrap();
        found.f_bavail * found.f_frsize
    }

    /// Takes space until so much is left.
    fn fill(&self, leave: u64) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.place.join("filler")).unwrap();
        while self.free() > leave {
            let part = (self.free() - leave).min(256 << 10) as usize;
            if file.write_all(&vec![7; part.max(1)]).is_err() {
                break;
            }
        }
    }

    fn clear(&self) {
        fs::remove_file(self.place.join("filler")).unwrap();
    }

    fn has_reserve(&self) -> bool {
        self.place.join("reserve").exists()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// The disk runs full: nothing is taken in and everybody is told, while staff go on reading and answering. When nothing
/// is left at all, auditing lives on the reserve, also over a restart. With room again, everything arrives, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_intake_and_nothing_else() {
    let mut site = Site::new().await;
    site.change_config("reserve_mb = 0", "reserve_mb = 8");
    let disk = SmallDisk::mount(&mut site, 64);
    site.begin().await;
    site.until("all lines to work", all_lines_work).await;
    site.world.modem.deliver(PATIENTS[0].phone, "Before");
    site.until("the first text", async |site: &Site| site.conversations().await.len() == 1).await;
    assert!(disk.has_reserve());

    // Less than half of the reserve is left beside it.
    disk.fill(3 * MIB);
    site.until("the lines to say it", async |site: &Site| {
        let lines = site.get("/lines").await;
        lines["lines"].as_array().unwrap().iter().all(|line| line["health"].to_string().contains("the disk is full"))
    })
    .await;
    assert!(disk.has_reserve(), "there is no need for it yet");
    let (uid, msg_id) = send_one_of_each(&site).await;
    let client = anybody();
    let metrics = client.get(site.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("frontdesk_disk_full 1\n") && metrics.contains("frontdesk_health{state=\"degraded\"} 1\n")
    );
    let conversation = site.conversations().await[0].clone();
    answer(&site, &conversation["id"], "An answer on a full disk").await;
    assert_eq!(site.world.modem.next_sent().await.text, "An answer on a full disk");
    is_waiting(&site, uid, &msg_id).await;

    // Somebody else takes the rest.
    disk.fill(0);
    site.until("the reserve to be given back", async |_: &Site| !disk.has_reserve()).await;
    let audited = events(&site).await;
    assert_eq!(site.conversations().await.len(), 1);
    site.until("reading to be audited", async |site: &Site| events(site).await > audited).await;
    answer(&site, &conversation["id"], "Another one").await;
    assert_eq!(site.world.modem.next_sent().await.text, "Another one");
    assert!(site.stop().success());
    site.start_daemon().await;
    assert_eq!(site.conversations().await.len(), 1);
    is_waiting(&site, uid, &msg_id).await;

    disk.clear();
    site.until("everything to arrive", async |site: &Site| site.conversations().await.len() == 4).await;
    site.until("all lines to work", all_lines_work).await;
    site.until("the reserve to be made again", async |_: &Site| disk.has_reserve()).await;
    site.until("the mail to be acknowledged", async |site: &Site| {
        site.world.mail.flags("INBOX", uid).unwrap().iter().any(|flag| flag == "\\Seen")
    })
    .await;
    assert_eq!(site.world.modem.stored_and_waiting(), (0, 0));
    let texts: Vec<String> = site.entries().await.iter().map(Value::to_string).collect();
    for once in ["Before", "While it is full", "A letter while it is full"] {
        assert_eq!(texts.iter().filter(|text| text.contains(once)).count(), 1, "{once}: {texts:?}");
    }
}

/// A mail, a text and a call. Gives the mail's UID and the voicemail's id.
async fn send_one_of_each(site: &Site) -> (u32, String) {
    let now = Clock::system().now();
    let letter = Letter {
        patient: &PATIENTS[1],
        to: ADDRESS,
        subject: "A letter",
        text: "A letter while it is full",
        file: None,
        in_reply_to: None,
        serial: 1,
        at: now,
    };
    let uid = site.world.mail.deliver("INBOX", letter.to_bytes(), now);
    site.world.modem.deliver(PATIENTS[2].phone, "While it is full");
    let call = Call {
        mailbox: "100",
        caller_id: "\"Tom Abernathy\" <+14155550177>",
        began: now,
        urgent: false,
        audio: vec![AudioFile::ulaw(&spoken(7, 1.0))],
        with_msg_id: true,
    };
    (uid, site.world.pbx.leave(&call).await.unwrap().unwrap())
}

/// Nothing has been acknowledged: the mail is unseen, the text on the SIM, the voicemail new.
async fn is_waiting(site: &Site, uid: u32, msg_id: &str) {
    site.until("the modem to have its text", async |site: &Site| site.world.modem.stored_and_waiting().0 == 1).await;
    let flags = site.world.mail.flags("INBOX", uid).unwrap();
    assert!(!flags.iter().any(|flag| flag == "\\Seen"), "{flags:?}");
    assert_eq!(site.world.pbx.place_of(msg_id).map(|(folder, _)| folder).as_deref(), Some("INBOX"));
    assert_eq!(site.conversations().await.len(), 1);
}

async fn answer(site: &Site, conversation: &Value, text: &str) {
    let path = format!("/conversations/{}", conversation.as_str().unwrap());
    let cursor = site.get(&path).await["cursor"].clone();
    site.post(&format!("{path}/replies"), json!({ "cursor": cursor, "line": "sms", "text": text })).await;
}

/// Commits so far: each list that is read adds its audit event.
async fn events(site: &Site) -> u64 {
    let client = anybody();
    let text = client.request(Method::GET, site.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("frontdesk_commits_total ")).unwrap();
    line.parse().unwrap()
}
