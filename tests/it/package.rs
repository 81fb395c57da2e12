//! The Debian package, built from this very binary and taken through its whole life in a booted Debian 12 by
//! `tests/peers/nspawn`: what is real there are systemd, its sandbox and credentials, dpkg and the maintainer scripts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a contractor does and what they then rely on, in order; each step is a shell script run by `bash -eux`.
const LIFE: &[(&str, &str)] = &[
    (
        "installing asks nothing, needs no network and starts nothing",
        "DEBIAN_FRONTEND=noninteractive dpkg -i /host/released.deb < /dev/null
         test \"$(systemctl is-enabled frontdesk)\" = disabled
         test \"$(systemctl is-active frontdesk)\" = inactive
         test \"$(systemctl is-active frontdesk.socket)\" = inactive
         test \"$(stat -c '%U %a' /var/lib/frontdesk)\" = 'frontdesk 700'
         test \"$(stat -c '%U %a' /etc/frontdesk/credentials /etc/frontdesk/sealed | sort -u)\" = 'root 700'
         id -nG frontdesk | grep -w dialout",
    ),
    (
        "ModemManager is kept away from the modem that the configuration names, and from no other",
        // No USB device here: the rule is tried on /dev/null, which is given a modem's serial number.
        "ignored() {
             { echo \"SUBSYSTEM==\\\"mem\\\", ENV{ID_SERIAL}=\\\"$1\\\"\"
               sed 's/SUBSYSTEM==\"usb\", ENV{DEVTYPE}==\"usb_device\"/SUBSYSTEM==\"mem\"/' /lib/udev/rules.d/70-frontdesk-modem.rules
             } > /etc/udev/rules.d/70-frontdesk-modem.rules
             udevadm test --action=add /sys/devices/virtual/mem/null 2> /dev/null | grep ID_MM_DEVICE_IGNORE=1
         }
         cp /etc/frontdesk/frontdesk.toml /root/shipped.toml
         echo '#device = \"/dev/serial/by-id/usb-ACME_Modem_0142-if00-port0\"' >> /etc/frontdesk/frontdesk.toml
         ignored ACME_Modem_0142
         fails ignored ACME_Modem_01
         fails ignored Other_Modem
         cp /root/shipped.toml /etc/frontdesk/frontdesk.toml",
    ),
    (
        "starting too early fails once and says what to do",
        "fails systemctl start frontdesk
         test \"$(systemctl show -P ExecMainStatus frontdesk)\" = 78
         test \"$(systemctl show -P NRestarts frontdesk)\" = 0
         journalctl -u frontdesk | grep 'frontdesk init'
         systemctl reset-failed frontdesk",
    ),
    (
        "init makes the key for root alone and everything else for the daemon",
        "frontdesk init --admin tester
         test \"$(stat -c '%U %a' /etc/frontdesk/credentials/kek)\" = 'root 600'
         # Root's commands on the files of a daemon that does not run leave nothing of root's behind either.
         echo 'only to be removed again' | frontdesk key add --passphrase
         frontdesk key list | grep passphrase
         frontdesk key remove 3
         test -z \"$(find /var/lib/frontdesk ! -user frontdesk)\"
         test -z \"$(find /var/lib/frontdesk -type f -perm /077)\"
         sha256sum /etc/frontdesk/credentials/kek > /root/key",
    ),
    (
        "a second init does not replace the key",
        "fails frontdesk init --admin tester
         sha256sum --check --quiet /root/key",
    ),
    (
        "the daemon runs as its own user, sandboxed, and answers on 443 with a certificate of the practice's own authority",
        "systemctl enable --now frontdesk
         test \"$(runs_as)\" = frontdesk
         healthy
         frontdesk token create tester | grep -oE '[^ ]{20,}' | tail -n1 > /root/token
         token_opens
         systemd-analyze security --no-pager --threshold=15 frontdesk",
    ),
    (
        "stopping it closes the port",
        "systemctl stop frontdesk
         fails healthy
         systemctl start frontdesk
         healthy",
    ),
    (
        "an upgrade restarts it with everything still there",
        "before=$(systemctl show -P MainPID frontdesk)
         dpkg -i /host/next.deb < /dev/null
         test \"$(dpkg-query -W -f '${Version}' frontdesk)\" != \"$(dpkg-deb -f /host/released.deb Version)\"
         test \"$(systemctl show -P MainPID frontdesk)\" != \"$before\"
         healthy
         token_opens",
    ),
    (
        "removing it stops it and keeps records and key",
        "dpkg -r frontdesk
         fails healthy
         fails grep -qx frontdesk /proc/[0-9]*/comm
         sha256sum --check --quiet /root/key
         test -n \"$(find /var/lib/frontdesk -type f)\"",
    ),
    (
        "installing it again takes up where it stopped",
        "dpkg -i /host/next.deb < /dev/null
         healthy
         token_opens",
    ),
    (
        "purging takes the configuration and keeps records and key",
        "dpkg -P frontdesk
         test ! -e /etc/frontdesk/frontdesk.toml
         sha256sum --check --quiet /root/key
         test -n \"$(find /var/lib/frontdesk -type f)\"
         dpkg -i /host/next.deb < /dev/null
         systemctl enable --now frontdesk
         token_opens",
    ),
    (
        "a key sealed to this host works just as well",
        "systemctl stop frontdesk
         find /var/lib/frontdesk -mindepth 1 -delete
         rm /etc/frontdesk/credentials/kek
         frontdesk init --admin tester --seal host
         test ! -e /etc/frontdesk/credentials/kek
         test \"$(stat -c '%U %a' /etc/frontdesk/sealed/kek)\" = 'root 600'
         systemctl start frontdesk
         healthy",
    ),
];

/// What the steps share.
const WORDS: &str = r#"
    ask() {
        # It answers 503 while it opens the records.
        curl --silent --show-error --fail --max-time 60 --retry 10 --cacert /var/lib/frontdesk/tls/ca.pem \
            --resolve frontdesk.lan:443:127.0.0.1 "https://frontdesk.lan$1" "${@:2}"
    }
    # `! command` would not end the script.
    fails() { if "$@"; then echo "should have failed: $*"; return 1; fi; }
    healthy() { ask /healthz; }
    token_opens() { ask /api/v1/conversations --header "Authorization: Bearer $(< /root/token)" > /dev/null; }
    runs_as() { stat -c %U "/proc/$(systemctl show -P MainPID frontdesk)"; }
"#;

/// The whole life of the package on one server: nothing of the practice's is ever lost.
#[test]
fn package_installs_upgrades_and_leaves_the_records() {
    let host = tempfile::tempdir().expect("a folder to show to the machine");
    let released = build(host.path(), &[]);
    let next = build(host.path(), &["--version", concat!(env!("CARGO_PKG_VERSION"), "+next")]);
    fs::rename(&released, host.path().join("released.deb")).unwrap();
    fs::rename(&next, host.path().join("next.deb")).unwrap();

    let mut script = String::new();
    for (index, (what, step)) in LIFE.iter().enumerate() {
        let file = format!("{index:02}.sh");
        fs::write(host.path().join(&file), format!("{WORDS}\nset -x\n{step}\n")).unwrap();
        script += &format!(
            "echo \"=== {what}\"\nbash -euo pipefail /host/{file} || {{ journalctl -u frontdesk -n 50 --no-pager; exit 1; }}\n"
        );
    }
    fs::write(host.path().join("life.sh"), script).unwrap();

    run(Command::new(tree().join("tests/peers/nspawn")).arg("run").arg(host.path()).arg("life.sh"));
}

/// Debian's own checker finds no error, and two builds of the same tree are the same bytes.
#[test]
fn package_passes_lintian_and_is_reproducible() {
    let folder = tempfile::tempdir().unwrap();
    let once = build(&folder.path().join("once"), &[]);
    let again = build(&folder.path().join("again"), &[]);
    assert!(fs::read(&once).unwrap() == fs::read(&again).unwrap(), "two builds differ");
    run(Command::new("lintian").args(["--allow-root", "--fail-on", "error"]).arg(&once));
}

/// Packages the binary under test and returns the package's path.
fn build(output: &Path, more: &[&str]) -> PathBuf {
    let built = run(Command::new(tree().join("packaging/build-deb"))
        .args(["--binary", env!("CARGO_BIN_EXE_frontdesk"), "--output"])
        .arg(output)
        .args(more));
    PathBuf::from(String::from_utf8(built.stdout).expect("a path").trim_end())
}

fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
