//! The daemon as the contractor meets it: start, stop, wrong configuration, commands.

use std::{fs, os::unix::fs::PermissionsExt, process::Output};

use reqwest::{Method, StatusCode};

use crate::site::Site;

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A wrong configuration is told by file, key, what was found and what is allowed, and systemd does not try again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_configuration_is_explained() {
    let site = Site::new().await;
    assert!(site.frontdesk(&["check-config"]).contains("is right"));
    site.change_config("undo_s = 0", "undo_s = 99");
    for command in ["check-config", "serve"] {
        let output = site.try_frontdesk(&[command]);
        assert_eq!(output.status.code(), Some(78), "{command}");
        let words = said(&output);
        for part in ["frontdesk.toml", "web.undo_s", "99", "0 to 30"] {
            assert!(words.contains(part), "{command}: {words}");
        }
    }
}

/// Without its key the daemon says what to run, and it refuses a key that others can read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_or_open_key_is_explained() {
    let site = Site::new().await;
    site.frontdesk(&["init", "--admin", "contractor"]);
    let key = site.path().join("credentials/kek");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let output = site.try_frontdesk(&["serve"]);
    assert!(output.status.code() == Some(78) && said(&output).contains("chmod 0600"), "{}", said(&output));
    fs::remove_file(&key).unwrap();
    let output = site.try_frontdesk(&["serve"]);
    assert!(output.status.code() == Some(78) && said(&output).contains("frontdesk init"), "{}", said(&output));
    // A new key could not open what is there.
    let output = site.try_frontdesk(&["init", "--admin", "second"]);
    assert!(!output.status.success() && !key.exists(), "{}", said(&output));
}

/// One daemon a store; it stops within ten seconds when asked, and says how it is while it runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_runs_once_answers_commands_and_stops() {
    let mut site = Site::start().await;
    let second = site.try_frontdesk(&["serve"]);
    assert!(!second.status.success() && said(&second).contains("another process"), "{}", said(&second));
    let socket = fs::metadata(site.path().join("admin.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);

    site.until("every line to work", async |site: &Site| {
        let words = said(&site.try_frontdesk(&["doctor"]));
        ["mail: works", "sms: works", "phone: works"].iter().all(|line| words.contains(line))
    })
    .await;
    site.world.modem.unplug();
    site.until("the doctor to miss the modem", async |site: &Site| {
        said(&site.try_frontdesk(&["doctor"])).contains("sms: down")
    })
    .await;

    let wrong = site.try_frontdesk(&["user", "add", "Not A Login", "--name", "x", "--role", "nurse"]);
    assert!(!wrong.status.success() && said(&wrong).contains("log-in name"), "{}", said(&wrong));
    let wrong = site.try_frontdesk(&["token", "create", "nobody"]);
    assert!(!wrong.status.success() && said(&wrong).contains("no such account"), "{}", said(&wrong));
    let rows = site.frontdesk(&["token", "list"]);
    let id = rows.split('\t').next().unwrap().to_owned();
    assert_eq!(site.api(Method::GET, "/me", None).await.0, StatusCode::OK);
    site.frontdesk(&["token", "revoke", &id]);
    assert_eq!(site.api(Method::GET, "/me", None).await.0, StatusCode::UNAUTHORIZED);

    assert!(site.stop().success());
    let gone = site.try_frontdesk(&["user", "list"]);
    assert!(!gone.status.success() && said(&gone).contains("is it running"), "{}", said(&gone));
}
