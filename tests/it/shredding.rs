//! `frontdesk shred` as a contractor meets it: what was destroyed is gone for staff, the API and after a restart.

use serde_json::Value;

use crate::site::Site;

const TEXTER: &str = "+14155550142";

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

async fn entry(site: &Site, field: &str, value: &str) -> Option<Value> {
    site.entries().await.into_iter().find(|entry| entry[field] == value)
}

/// A patient asks for a text to be forgotten: the command prints a certificate, and staff see that it was destroyed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_destroyed_with_a_certificate() {
    let mut site = Site::start().await;
    site.world.modem.deliver(TEXTER, "Please forget this");
    site.world.modem.deliver(TEXTER, "And remember that");
    let both = async |site: &Site| {
        entry(site, "text", "Please forget this").await.is_some()
            && entry(site, "text", "And remember that").await.is_some()
    };
    site.until("two texts", both).await;
    let id = entry(&site, "text", "Please forget this").await.unwrap()["id"].as_str().unwrap().to_owned();

    for (arguments, code, words) in [
        (vec!["shred"], 2, "MESSAGE-ID"),
        (vec!["shred", &id], 2, "--reason"),
        (vec!["shred", "--list", &id], 2, "--list"),
        (vec!["shred", "nonsense", "--reason", "why"], 1, "\"nonsense\" is no message id"),
        (vec!["shred", "00000000000000000000000000", "--reason", "why"], 1, "There is no message"),
        (vec!["shred", &id, "--reason", " "], 1, "Give a reason"),
    ] {
        let output = site.try_frontdesk(&arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(said(&output).contains(words), "{arguments:?}: {}", said(&output));
    }
    assert_eq!(site.frontdesk(&["shred", "--list"]), "");

    let certificate = site.frontdesk(&["shred", &id, "--reason", "Asked for in writing"]);
    for words in ["certificate\t", &id, "Asked for in writing", "nothing on this server opens", "until 20"] {
        assert!(certificate.contains(words), "{words}: {certificate}");
    }
    assert!(!certificate.contains("forget this"));
    let number = certificate.lines().next().unwrap().split('\t').nth(1).unwrap();
    assert!(site.frontdesk(&["shred", "--list"]).contains(number));
    assert!(said(&site.try_frontdesk(&["shred", &id, "--reason", "again"])).contains("was destroyed already"));

    for restarted in [false, true] {
        if restarted {
            assert!(site.stop().success());
            site.start_daemon().await;
        }
        assert!(entry(&site, "text", "Please forget this").await.is_none());
        assert_eq!(entry(&site, "id", &id).await.unwrap()["certificate"], *number);
        assert!(entry(&site, "text", "And remember that").await.is_some());
    }
}
