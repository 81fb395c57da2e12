//! The Health page as each role meets it, and what monitors may ask.

use std::net::{IpAddr, Ipv4Addr};

use axum::{body::Body, extract::Request};
use frontdesk::{
    model::health::{JobReport, KeySafety},
    web::{ClientAddress, router},
};
use tower::ServiceExt as _;

use super::*;

impl Desk {
    async fn manager(&self) -> Browser {
        self.colleague("jordan", "Jordan Lee", Role::Manager).await
    }

    async fn examine(&self) {
        let job =
            |name: &str, stuck| JobReport { name: name.into(), last_beat: self.clock.now(), failure: None, stuck };
        self.inbox.examine(vec![job("filing", false), job("tidy", true)]).await.unwrap();
    }
}

/// A modem is away: everybody reads since when, why and what to do; managers and administrators also see queues, disk,
/// keys, clock and jobs, and nobody sees a page without having logged in.
#[tokio::test]
async fn everybody_sees_the_lines_and_managers_all_of_it() {
    let desk = Desk::open().await;
    desk.inbox.note_keys(KeySafety { kinds: vec!["a file".into()], safe_when_stolen: false, memory_locked: true });
    desk.inbox.report_health(&line("sms"), LineState::Down { what: "the modem does not answer".into() }, None);
    desk.examine().await;
    let (maria, jordan) = (desk.front_desk().await, desk.manager().await);
    let ada = desk.colleague("ada", "Ada Contractor", Role::Administrator).await;

    let page = maria.page("/health").await;
    for part in ["One thing needs attention", "The modem does not answer.", "call people instead of texting"] {
        assert!(page.contains(part), "{part}");
    }
    for part in ["tidy", "What waits", "Stolen disk", "journalctl", "frontdesk doctor"] {
        assert!(!page.contains(part), "{part} is not for the front desk");
    }
    for browser in [&jordan, &ada] {
        let page = browser.page("/health").await;
        for part in
            ["2 things need attention", "The job tidy is stuck", "What waits", "Stolen disk", "frontdesk doctor"]
        {
            assert!(page.contains(part), "{part}");
        }
        // The lamp in the rail, on every page.
        let inbox = browser.page("/inbox/needs-action").await;
        assert!(inbox.contains("class=\"lamp health-link down\" href=\"/health\""));
    }
    let part = jordan.part("/health", "health").await;
    assert!(part.contains("id=\"rail\"") && part.contains("id=\"health\"") && !part.contains("<html"));
    assert_eq!(desk.browser().get("/health").await.status(), StatusCode::SEE_OTHER);

    desk.inbox.report_health(&line("sms"), LineState::Up, None);
    desk.inbox.examine(Vec::new()).await.unwrap();
    assert!(maria.page("/health").await.contains("Everything works"));
    let calm = maria.page("/inbox/needs-action").await;
    assert!(calm.contains("class=\"lamp health-link ok\""));
}

/// The banner of a line that is down says how many answers wait for it.
#[tokio::test]
async fn a_banner_counts_the_answers_that_wait() {
    let desk = Desk::open().await;
    let maria = desk.front_desk().await;
    desk.text(ELEANOR, "Can I come on Thursday?").await;
    let (id, _) = desk.newest(&maria).await;
    let cursor = maria.cursor(id).await;
    let fields = [("cursor", cursor.as_str()), ("way", "sms"), ("line-sms", "sms"), ("text", "Yes, at nine")];
    let sent = maria.send(id, &fields).await;
    assert!(sent.status().is_success() || sent.status().is_redirection(), "{}", sent.status());
    desk.inbox.report_health(&line("sms"), LineState::Down { what: "the modem does not answer".into() }, None);
    desk.examine().await;
    assert!(maria.page("/inbox/needs-action").await.contains("1 answer waits and leaves by itself."));
}

/// After a jump of two hours the page shows the time and asks two people; one is not enough, and who saw an older doubt
/// is told to look again.
#[tokio::test]
async fn two_people_confirm_the_clock_on_the_page() {
    let desk = Desk::open().await;
    let (maria, jordan) = (desk.front_desk().await, desk.manager().await);
    desk.clock.set(desk.clock.now().plus_ms(2 * 60 * MINUTE_MS));
    // The sessions of a clock that is two hours ahead are over.
    let (maria, jordan) = (relogin(&maria, "maria").await, relogin(&jordan, "jordan").await);
    let ada = desk.colleague("ada", "Ada Contractor", Role::Administrator).await;
    desk.examine().await;
    let page = jordan.page("/health").await;
    assert!(page.contains("Is this the right time?") && page.contains("The clock has just jumped"), "{page}");
    assert!(!maria.page("/health").await.contains("Is this the right time?"));
    let noticed = between(&page, "name=\"noticed\" value=\"", "\"").to_owned();

    let confirm = async |browser: &Browser, noticed: &str| {
        let answer = browser.post("/health/clock", &[("noticed", noticed)]).await;
        (answer.status(), location(&answer).to_owned())
    };
    let see_other = |path: &str| (StatusCode::SEE_OTHER, format!("/health?clock={path}"));
    assert_eq!(confirm(&maria, &noticed).await.0, StatusCode::FORBIDDEN);
    assert_eq!(confirm(&jordan, "now").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(confirm(&jordan, "5").await, see_other("moved"));
    assert_eq!(confirm(&jordan, &noticed).await, see_other("confirmed"));
    desk.examine().await;
    let page = jordan.page("/health?clock=confirmed").await;
    assert!(page.contains("Confirmed by <b>Jordan Lee</b>") && page.contains("You have confirmed it"), "{page}");
    assert!(!page.contains("name=\"noticed\""));
    assert_eq!(confirm(&jordan, &noticed).await, see_other("confirmed"), "twice is once");
    assert_eq!(confirm(&ada, &noticed).await, see_other("settled"));
    desk.examine().await;
    assert!(ada.page("/health?clock=settled").await.contains("The clock is trusted again"));
}

async fn relogin(browser: &Browser, login: &str) -> Browser {
    let answer = browser.post("/login", &[("login", login), ("password", PASSWORD), ("next", "/")]).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    browser.clone()
}

/// Numbers are for programs on this machine and for those that have a token; others are told nothing.
#[tokio::test]
async fn metrics_need_this_machine_or_a_token() {
    let desk = Desk::open().await;
    desk.examine().await;
    let console = Actor::Console { uid: 0 };
    desk.inbox.add_staff(console.clone(), "monitor", "Monitor", Role::FrontDesk).await.unwrap();
    let (_, token) = desk.inbox.make_token(console, "prometheus", "monitor", 90).await.unwrap();
    let app = router(WebState::new(desk.inbox.clone(), None));
    let ask = async |from: [u8; 4], bearer: Option<&str>| {
        let mut request = Request::builder().uri("/metrics");
        if let Some(token) = bearer {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(ClientAddress(IpAddr::V4(Ipv4Addr::from(from))));
        let answer = app.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        (status, axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap())
    };
    let (status, text) = ask([127, 0, 0, 1], None).await;
    assert!(status == StatusCode::OK && text.starts_with(b"# HELP frontdesk_"));
    assert_eq!(ask([192, 0, 2, 7], Some(&token)).await.0, StatusCode::OK);
    for (from, bearer) in [([192, 0, 2, 7], None), ([192, 0, 2, 7], Some("fd_wrong")), ([10, 0, 0, 1], None)] {
        let (status, text) = ask(from, bearer).await;
        assert!(status == StatusCode::UNAUTHORIZED && text.is_empty(), "{from:?} {status}");
    }
}
