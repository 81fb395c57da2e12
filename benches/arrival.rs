//! From the modem's `+CMTI` to the browser: `cargo bench --bench arrival [-- TEXTS]`, 50 where nothing is said.
//!
//! Texts come one at a time to an idle daemon. Measured are the time to the server-sent event that a logged-in browser
//! gets, the time until that browser has fetched the list with the text in it, and what of it is the modem's own: the
//! time in which a plain program hears `+CMTI` and gets the answer to `AT+CMGL` from the same modem.

mod common;

use std::{
    fs::File,
    io::{Read, Write},
    time::Duration,
};

use common::{client, count_or, now, percentile, row, site::Site, title, until};
use frontdesk::demo::modem::SimulatedModem;
use reqwest::{
    Client, Response,
    header::{HeaderMap, HeaderValue},
};

const FROM: &str = "+14155550142";
const PASSWORD: &str = "four calm herons wade";
/// What follows a text, such as its deletion from the SIM, is over when nothing happened for so long.
const IDLE: Duration = Duration::from_millis(200);

/// A browser on the list of open conversations.
struct Browser {
    client: Client,
    list: String,
    events: Response,
    heard: String,
}

impl Browser {
    async fn log_in(site: &Site) -> Self {
        let invitation = site.frontdesk(&["user", "add", "reader", "--name", "Robin Hale", "--role", "manager"]);
        let (_, secret) = invitation.rsplit_once("/welcome/").expect("it prints a link");
        let secret: String = secret.chars().take_while(|c| !c.is_whitespace()).collect();
        let mut headers = HeaderMap::new();
        headers.insert("sec-fetch-site", HeaderValue::from_static("same-origin"));
        let client = client(site).cookie_store(true).default_headers(headers).build().expect("a client");
        let form = [("password", PASSWORD), ("again", PASSWORD)];
        let answer = client.post(site.url(&format!("/welcome/{secret}"))).form(&form).send().await.expect("it answers");
        assert!(answer.status().is_success(), "{}", answer.status());
        let list = site.url("/inbox/needs-action");
        let events = client.get(site.url("/events")).send().await.expect("it answers");
        assert!(events.status().is_success(), "{}", events.status());
        Self { client, list, events, heard: String::new() }
    }

    /// Waits for the next event that says that something changed.
    async fn change(&mut self) {
        loop {
            while let Some(end) = self.heard.find("\n\n") {
                let event: String = self.heard.drain(..end + 2).collect();
                if event.lines().any(|line| line == "event: change") {
                    return;
                }
            }
            let bytes = self.events.chunk().await.expect("the stream goes on").expect("the stream goes on");
            self.heard.push_str(std::str::from_utf8(&bytes).expect("text"));
        }
    }

    /// Waits until nothing changes any more.
    async fn rest(&mut self) {
        while tokio::time::timeout(IDLE, self.change()).await.is_ok() {}
    }

    /// The list as a live page fetches it.
    async fn list(&self) -> String {
        let request = self.client.get(&self.list).header("x-part", "list").header("x-live", "1");
        request.send().await.expect("it answers").text().await.expect("a page")
    }

    /// Gives the time of the first event and the time of the list that shows `words`.
    async fn sees(&mut self, words: &str) -> (Duration, Duration) {
        let began = now();
        self.change().await;
        let heard = began.elapsed();
        while !self.list().await.contains(words) {
            self.change().await;
        }
        (heard, began.elapsed())
    }
}

/// A plain program on a modem: no more than what the dialogue needs.
struct Plain {
    modem: SimulatedModem,
    port: File,
    _directory: tempfile::TempDir,
}

impl Plain {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let modem = SimulatedModem::start(directory.path()).expect("a modem");
        let port = File::options().read(true).write(true).open(modem.path()).expect("its port");
        let mut plain = Self { modem, port, _directory: directory };
        for command in ["ATE0", "AT+CMGF=0", "AT+CPMS=\"SM\",\"SM\",\"SM\"", "AT+CNMI=2,1,0,2,0"] {
            plain.ask(command);
        }
        plain
    }

    fn hear(&mut self, word: &str) -> String {
        let (mut heard, mut buffer) = (String::new(), [0; 4096]);
        while !heard.contains(word) {
            let count = self.port.read(&mut buffer).expect("the port is open");
            heard.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        heard
    }

    fn ask(&mut self, command: &str) -> String {
        self.port.write_all(format!("{command}\r").as_bytes()).expect("the port is open");
        self.hear("OK\r\n")
    }

    /// The modem's own time for one text.
    fn receive(&mut self, text: &str) -> Duration {
        let began = now();
        self.modem.deliver(FROM, text);
        self.hear("+CMTI");
        let listed = self.ask("AT+CMGL=4");
        let took = began.elapsed();
        assert!(listed.contains("+CMGL:"), "it is listed");
        self.ask("AT+CMGD=1,4");
        took
    }
}

fn main() {
    common::run(run(count_or(50)));
}

async fn run(count: usize) {
    title(&format!("Arrival: {count} texts, one at a time, from the modem to a browser"));
    let mut plain = Plain::start();
    let mut own: Vec<Duration> =
        (0..count).map(|n| tokio::task::block_in_place(|| plain.receive(&format!("Text {n:04}")))).collect();

    let site = Site::start().await;
    let mut browser = Browser::log_in(&site).await;
    let (mut events, mut lists) = (Vec::new(), Vec::new());
    for n in 0..=count {
        let words = format!("Text {n:04}");
        site.world.modem.deliver(FROM, &words);
        let (event, list) = browser.sees(&words).await;
        // The first one finds a modem that is still starting.
        if n > 0 {
            events.push(event);
            lists.push(list);
        }
        let modem = &site.world.modem;
        until("an empty SIM", IDLE, async || modem.stored_and_waiting() == (0, 0)).await;
        browser.rest().await;
    }
    for (what, times) in [("the modem's own", &mut own), ("to the event", &mut events), ("to the list", &mut lists)] {
        times.sort_unstable();
        let [half, most] = [50, 99].map(|percent| percentile(times, percent).as_secs_f64() * 1e3);
        row(&format!("{what}: median, p99, ms"), format!("{half:.1}, {most:.1}"));
    }
    let beyond = percentile(&lists, 50).saturating_sub(percentile(&own, 50));
    row("median beyond the modem's own, ms (under 100)", format!("{:.1}", beyond.as_secs_f64() * 1e3));
}
