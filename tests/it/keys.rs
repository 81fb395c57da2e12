//! `frontdesk init`, `key` and `doctor` as the contractor uses them: what opens the records, and what does not.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::site::Site;

const WORDS: &str = "correct horse battery staple";

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn command(site: &Site, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_frontdesk"));
    command.args(arguments).arg("--config").arg(site.config_path());
    command.envs(site.environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command, types these lines, and gives how it ended.
fn typing(site: &Site, arguments: &[&str], typed: &str) -> Output {
    let mut child = command(site, arguments).spawn().unwrap();
    // It may have refused before it asked.
    let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
    tokio::task::block_in_place(|| child.wait_with_output()).unwrap()
}

fn does(site: &Site, arguments: &[&str], typed: &str) -> String {
    let output = typing(site, arguments, typed);
    assert!(output.status.success(), "{arguments:?}: {}", words(&output));
    words(&output)
}

fn fails(site: &Site, arguments: &[&str], typed: &str, parts: &[&str]) {
    let output = typing(site, arguments, typed);
    let said = words(&output);
    assert!(!output.status.success(), "{arguments:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{arguments:?} does not say {part:?}: {said}");
    }
}

/// The recovery key on a sheet.
fn printed(sheet: &str) -> String {
    let rows = sheet.lines().filter(|line| line.trim_start().starts_with("groups "));
    let groups: Vec<&str> = rows.filter_map(|row| row.split_whitespace().last()).collect();
    assert_eq!(groups.len(), 3, "{sheet}");
    groups.join("-")
}

/// Runs a command that prints a sheet and asks for one of its groups; `answer` makes what is typed of that group.
fn with_sheet(site: &Site, arguments: &[&str], typed: &str, answer: impl Fn(&str) -> String) -> (Output, String) {
    let mut child = command(site, arguments).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(typed.as_bytes()).unwrap();
    asked_for_the_sheet(child, stdin, answer)
}

fn asked_for_the_sheet(mut child: Child, mut stdin: impl Write, answer: impl Fn(&str) -> String) -> (Output, String) {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let (mut said, mut asked) = (String::new(), Vec::new());
    tokio::task::block_in_place(|| {
        while !said.contains("groups 11 to 13") && out.read_line(&mut said).unwrap() > 0 {}
        // "… type group 7 of it: " comes without an end of line.
        while !String::from_utf8_lossy(&asked).contains(" of it:") && err.read_until(b':', &mut asked).unwrap() > 0 {}
    });
    let question = String::from_utf8(asked).unwrap();
    let group: usize = question.rsplit("group ").next().unwrap().split(' ').next().unwrap().parse().expect(&question);
    let key = printed(&said);
    stdin.write_all(format!("{}\n", answer(key.split('-').nth(group - 1).unwrap())).as_bytes()).unwrap();
    drop(stdin);
    let status = tokio::task::block_in_place(|| {
        out.read_to_string(&mut said).unwrap();
        let mut rest = String::new();
        err.read_to_string(&mut rest).unwrap();
        said += &format!("{question}{rest}");
        child.wait().unwrap()
    });
    (Output { status, stdout: said.into_bytes(), stderr: Vec::new() }, key)
}

fn credential(site: &Site) -> PathBuf {
    site.path().join("credentials/kek")
}

/// Whether the records open with these words alone.
fn opens_with(site: &Site, typed: &str) -> bool {
    let kept = site.path().join("credentials/elsewhere");
    let was_there = fs::rename(credential(site), &kept).is_ok();
    // A slot is added and removed again: both need the key.
    let added = typing(site, &["key", "add", "--passphrase"], &format!("{typed}\nonly to see whether it opens\n"));
    let opens = added.status.success();
    if opens {
        does(site, &["key", "remove", &slot_of(&words(&added))], &format!("{typed}\n"));
    }
    if was_there {
        fs::rename(kept, credential(site)).unwrap();
    }
    opens
}

/// The number of the key slot that a command made.
fn slot_of(said: &str) -> String {
    said.split("Key slot ").nth(1).and_then(|rest| rest.split(' ').next()).expect(said).to_owned()
}

/// Slots come and go, the same way whether the daemon runs or not.
fn slots_come_and_go(site: &Site) {
    let list = site.frontdesk(&["key", "list"]);
    let rows: Vec<&str> = list.lines().collect();
    assert!(rows[0].starts_with("1\tcredential in a file") && rows[1].starts_with("2\trecovery key"), "{list}");
    assert!(rows.len() == 2 && rows.iter().all(|row| row.ends_with("works")), "{list}");

    let add = ["key", "add", "--passphrase", "--label", "Dr Berg"];
    let said = does(site, &add, &format!("{WORDS}\n"));
    assert!(!said.contains(WORDS), "{said}");
    let id = slot_of(&said);
    let list = site.frontdesk(&["key", "list"]);
    let row = list.lines().find(|row| row.starts_with(&id)).expect(&list);
    assert!(row.contains("passphrase") && row.contains("Dr Berg"), "{row}");
    fails(site, &["key", "add", "--passphrase"], "too short\n", &["at least 15 characters"]);
    fails(site, &["key", "add", "--passphrase"], "", &["nothing was typed"]);
    let long = ["key", "add", "--passphrase", "--label", &"x".repeat(61)];
    fails(site, &long, &format!("{WORDS}\n"), &["60 characters"]);
    let there = credential(site).display().to_string();
    fails(site, &["key", "add", "--credential", &there], "", &["kek exists already"]);
    fails(site, &["key", "remove", "99"], "", &["no key slot 99"]);
    fails(site, &["key", "add"], "", &["--passphrase"]);
    fails(site, &["key", "add", "--passphrase", "--seal", "host"], "", &["cannot be used with"]);

    let said = does(site, &["key", "remove", &id], "");
    assert!(said.contains("is removed") && said.contains("frontdesk key rotate"), "{said}");
    // The last recovery key goes only when that is meant.
    fails(site, &["key", "remove", "2"], "yes\n", &["last recovery key", "nothing was changed"]);
    assert_eq!(site.frontdesk(&["key", "list"]).lines().count(), 2);
}

/// A new practice has a credential and a recovery key; others are added and removed by the daemon, which holds the key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_slots_come_and_go_while_the_daemon_runs() {
    let mut site = Site::start().await;
    slots_come_and_go(&site);
    assert!(site.is_healthy().await && site.stop().success());
}

/// Without the daemon the command opens the records itself: with the credential, a passphrase or the recovery key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_slots_come_and_go_without_the_daemon() {
    let site = Site::new().await;
    fails(&site, &["key", "list"], "", &["no key slots", "frontdesk init"]);
    let recovery = printed(&site.frontdesk(&["init", "--admin", "contractor"]));
    slots_come_and_go(&site);
    does(&site, &["key", "add", "--passphrase"], &format!("{WORDS}\n"));
    for typed in [WORDS, &recovery, &recovery.to_lowercase().replace('-', " ")] {
        assert!(opens_with(&site, typed), "{typed}");
    }
    let group = recovery.split('-').nth(4).unwrap();
    let other = if group.starts_with('0') { "1" } else { "0" };
    let typo = recovery.replace(group, &format!("{other}{}", &group[1..]));
    for (typed, answer) in [
        ("incorrect horse battery staple", "neither a passphrase nor the recovery key"),
        (&typo, "group 5 of the recovery key is mistyped"),
        (&recovery[..recovery.len() - 2], "group 13 of the recovery key is mistyped"),
    ] {
        fs::rename(credential(&site), site.path().join("kept")).unwrap();
        fails(&site, &["key", "add", "--passphrase"], &format!("{typed}\nnever asked for this one\n"), &[answer]);
        fs::rename(site.path().join("kept"), credential(&site)).unwrap();
    }
}

/// Another credential takes the place of the first, and the daemon starts with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_is_replaced() {
    let mut site = Site::start().await;
    let second = site.path().join("stick");
    let said = does(&site, &["key", "add", "--credential", second.to_str().unwrap(), "--label", "stick"], "");
    assert_eq!(fs::metadata(&second).unwrap().permissions().mode() & 0o777, 0o600, "{said}");
    let said = does(&site, &["key", "remove", "1"], "");
    assert!(said.contains("credentials/kek opened nothing else and is removed too"), "{said}");
    assert!(!credential(&site).exists() && site.stop().success());
    let key = format!("[keys]\nkek = \"{}\"", second.display());
    site.change_config("[keys]", &key);
    site.start_daemon().await;
    assert!(site.frontdesk(&["key", "list"]).contains("\tstick\tworks"));
    // That the file of key slots names a file elsewhere is no reason for root to remove that.
    let third = site.path().join("elsewhere");
    let said = does(&site, &["key", "add", "--credential", third.to_str().unwrap()], "");
    let said = does(&site, &["key", "remove", &slot_of(&said)], "");
    assert!(said.contains("elsewhere opened nothing else: remove it") && third.exists(), "{said}");
}

/// Who sets a practice up at a terminal is asked for a group of the printed sheet. Without it the practice is made all the
/// same, and they are told what to do before it begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_asks_at_a_terminal_whether_the_sheet_is_printed() {
    for (answer, warns) in [(str::to_lowercase as fn(&str) -> String, false), (|_| "12345\n1\n2".to_owned(), true)] {
        let site = Site::new().await;
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let other_end = fs::File::options().read(true).write(true).open(name).unwrap();
        let child = command(&site, &["init", "--admin", "contractor"]).stdin(other_end).spawn().unwrap();
        let (ended, key) = asked_for_the_sheet(child, fs::File::from(terminal), answer);
        assert!(ended.status.success(), "{}", words(&ended));
        assert_eq!(words(&ended).contains("Nobody has the recovery key on paper"), warns, "{}", words(&ended));
        assert!(opens_with(&site, &key));
    }
}

/// A new recovery key ends the old one only when the new one is on paper.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_key_is_renewed() {
    let mut site = Site::new().await;
    let first = printed(&site.frontdesk(&["init", "--admin", "contractor"]));
    site.start_daemon().await;
    let (ended, second) = with_sheet(&site, &["key", "recovery"], "", |_| "12345".to_owned());
    assert!(!ended.status.success() && words(&ended).contains("both work"), "{}", words(&ended));
    let (ended, third) = with_sheet(&site, &["key", "recovery"], "", str::to_lowercase);
    assert!(ended.status.success(), "{}", words(&ended));
    assert!(site.stop().success());
    assert!(opens_with(&site, &third) && !opens_with(&site, &second) && !opens_with(&site, &first));
}

/// After a rotation nothing of before opens the records: not an old sheet, and no copy of the files of key slots.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_is_replaced() {
    let mut site = Site::new().await;
    let first = printed(&site.frontdesk(&["init", "--admin", "contractor"]));
    site.start_daemon().await;
    does(&site, &["key", "add", "--passphrase", "--label", "boss"], &format!("{WORDS}\n"));
    does(&site, &["key", "add", "--passphrase", "--label", "left us"], "another long passphrase\n");
    let files = ["keyslots", "keyslots.copy"].map(|file| site.state().join(file));
    let before = files.clone().map(|file| fs::read(file).unwrap());

    // A wrong passphrase, and a sheet that nobody printed, change nothing.
    let (ended, _) = with_sheet(&site, &["key", "rotate"], "wrong wrong wrong wrong\n\n", str::to_owned);
    assert!(!ended.status.success() && words(&ended).contains("does not open key slot 3"), "{}", words(&ended));
    let typed = format!("{WORDS}\n\n");
    let (ended, _) = with_sheet(&site, &["key", "rotate"], &typed, |_| String::new());
    assert!(!ended.status.success() && words(&ended).contains("nothing was changed"), "{}", words(&ended));
    assert_eq!(files.clone().map(|file| fs::read(file).unwrap()), before);

    let (ended, second) = with_sheet(&site, &["key", "rotate"], &typed, str::to_owned);
    assert!(ended.status.success(), "{}", words(&ended));
    assert!(words(&ended).contains("Passphrase of key slot 3 (boss)"), "{}", words(&ended));
    let list = site.frontdesk(&["key", "list"]);
    assert!(list.contains("boss") && !list.contains("left us") && list.lines().count() == 3, "{list}");
    assert!(site.is_healthy().await && site.stop().success());
    site.start_daemon().await;
    assert!(site.stop().success());
    assert!(opens_with(&site, &second) && opens_with(&site, WORDS));
    assert!(!opens_with(&site, &first) && !opens_with(&site, "another long passphrase"));
    for (file, bytes) in files.iter().zip(before) {
        fs::write(file, bytes).unwrap();
    }
    let ended = site.serve_command().status().unwrap();
    assert!(!ended.success());
    assert!(site.log().contains("belongs to another installation"), "{}", site.log());
}

/// Where the key cannot be replaced to the end, nobody is told to throw a sheet away: after a restart exactly one of the
/// two opens the records, and the list says which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_half_replaced_voids_no_sheet() {
    for (file, new_counts) in [("keyring.new", false), ("keyring.copy.new", true)] {
        let mut site = Site::new().await;
        let first = printed(&site.frontdesk(&["init", "--admin", "contractor"]));
        site.start_daemon().await;
        // No file can be written under the name of a directory.
        let obstacle = site.state().join(file);
        fs::create_dir(&obstacle).unwrap();
        let (ended, second) = with_sheet(&site, &["key", "rotate"], "", str::to_owned);
        let said = words(&ended);
        assert!(!ended.status.success() && said.contains("keep both sheets") && !said.contains("void"), "{said}");
        assert!(site.stop().success());
        fs::remove_dir(&obstacle).unwrap();
        site.start_daemon().await;
        let list = site.frontdesk(&["key", "list"]);
        assert_eq!(list.matches("recovery key").count(), 1, "{list}");
        assert!(site.stop().success());
        assert_eq!((opens_with(&site, &first), opens_with(&site, &second)), (!new_counts, new_counts), "{file}");
    }
}

/// One damaged key slot is named and the others go on; one damaged file costs nothing and is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_key_slot_is_named_and_the_others_work() {
    let mut site = Site::start().await;
    does(&site, &["key", "add", "--passphrase"], &format!("{WORDS}\n"));
    assert!(site.stop().success());
    let state = site.state();
    let damage = |file: &str, line: usize| {
        let path = state.join(file);
        let mut lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
        lines[line - 1].replace_range(80..90, "##########");
        fs::write(&path, lines.join("\n") + "\n").unwrap();
    };
    damage("keyslots", 1);
    fails(&site, &["doctor"], "", &["key slot 1 is damaged in the file keyslots"]);
    site.start_daemon().await;
    assert!(site.log().contains("key slot 1 is damaged in the file keyslots"), "{}", site.log());
    let said = words(&site.try_frontdesk(&["doctor"]));
    assert!(!said.contains("keys: key slot 1 is damaged") && said.contains("it was written anew"), "{said}");

    assert!(site.stop().success());
    damage("keyslots", 2);
    damage("keyslots.copy", 2);
    site.start_daemon().await;
    let list = site.frontdesk(&["key", "list"]);
    let rows: Vec<&str> = list.lines().collect();
    assert!(rows[1].contains("damaged: remove it and add it anew"), "{list}");
    assert!(rows[0].ends_with("works") && rows[2].ends_with("works"), "{list}");
    let said = words(&site.try_frontdesk(&["doctor"]));
    for part in ["key slot 2 (recovery key) is lost", "there is no recovery key"] {
        assert!(said.contains(part), "{said}");
    }
    let (ended, _) = with_sheet(&site, &["key", "recovery"], "", str::to_owned);
    assert!(ended.status.success(), "{}", words(&ended));
    let said = words(&site.try_frontdesk(&["doctor"]));
    assert!(!said.contains("is lost") && !said.contains("no recovery key"), "{said}");
}

/// With a passphrase alone no key is on the machine, and `doctor` says that a thief of the disk gets nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_practice_can_do_with_a_passphrase_alone() {
    let site = Site::new().await;
    fails(&site, &["init", "--admin", "contractor", "--passphrase"], "short\n", &["at least 15 characters"]);
    fails(&site, &["init", "--admin", "contractor", "--passphrase", "--seal", "host"], "", &["cannot be used with"]);
    let said = does(&site, &["init", "--admin", "contractor", "--passphrase"], &format!("{WORDS}\n"));
    assert!(said.contains("somebody types the passphrase") && !credential(&site).exists(), "{said}");
    let said = words(&site.try_frontdesk(&["doctor"]));
    for part in ["no key is kept on this machine", "until somebody types a passphrase"] {
        assert!(said.lines().any(|line| line.starts_with("ok") && line.contains(part)), "{part}: {said}");
    }
    fails(&site, &["key", "add", "--passphrase"], "wrong passphrase\n", &["neither a passphrase nor"]);
    does(&site, &["key", "add", "--passphrase"], &format!("{WORDS}\nanother long passphrase\n"));
}

/// A credential that is sealed to a TPM2 opens the records on the machine with that TPM2 and on no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_is_sealed_to_a_tpm2() {
    let mut site = Site::new().await;
    let tpm = Tpm::start(&site.path().join("tpm"));
    site.environment.push(("PATH", tpm.path()));
    does(&site, &["init", "--admin", "contractor", "--seal", "tpm2"], "");
    let sealed = site.path().join("sealed/kek");
    assert!(!credential(&site).exists());
    assert_eq!(fs::metadata(&sealed).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(words(&typing(&site, &["key", "list"], "")).contains("1\tcredential sealed to the TPM2"));
    let said = words(&typing(&site, &["doctor"], ""));
    for part in ["sealed/kek opens key slot 1", "they open on this machine alone"] {
        assert!(said.lines().any(|line| line.starts_with("ok") && line.contains(part)), "{part}: {said}");
    }
    // Without the daemon, a command unseals the credential itself.
    does(&site, &["key", "add", "--passphrase"], &format!("{WORDS}\n"));

    // At a start systemd unseals it, and hands it over under this name.
    let handed_over = site.path().join("handed-over");
    fs::create_dir(&handed_over).unwrap();
    let unseal = |tpm: &Tpm| {
        let target = handed_over.join("sealed_kek");
        let mut creds = Command::new("systemd-creds");
        creds.env("PATH", tpm.path()).args(["decrypt", "--name=sealed_kek"]).arg(&sealed).arg(&target);
        let unsealed = creds.output().unwrap();
        if unsealed.status.success() {
            fs::set_permissions(&target, fs::Permissions::from_mode(0o400)).unwrap();
            return Ok(());
        }
        Err(String::from_utf8_lossy(&unsealed.stderr).into_owned())
    };
    unseal(&tpm).unwrap();
    site.environment.push(("CREDENTIALS_DIRECTORY", handed_over.clone().into()));
    site.start_daemon().await;
    assert!(site.stop().success());

    // Another machine, whose TPM2 is another one: the words still open the records.
    site.environment.clear();
    let other = Tpm::start(&site.path().join("other"));
    site.environment.push(("PATH", other.path()));
    assert!(unseal(&other).is_err(), "another TPM2 does not open it");
    fails(&site, &["doctor"], "", &["could not open", "sealed/kek"]);
    does(&site, &["key", "add", "--passphrase"], &format!("{WORDS}\nanother long passphrase\n"));
}

/// Where there is no TPM2, sealing to it says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_tpm2_sealing_to_it_fails_and_leaves_nothing() {
    let site = Site::new().await;
    fails(&site, &["init", "--admin", "contractor", "--seal", "tpm2"], "", &["could not seal the key to tpm2"]);
    assert!(!site.path().join("sealed/kek").exists());
    site.frontdesk(&["init", "--admin", "contractor"]);
    fails(&site, &["key", "add", "--seal", "tpm2"], "", &["could not seal the key to tpm2"]);
    assert_eq!(site.frontdesk(&["key", "list"]).lines().count(), 2);
}

/// A software TPM2, and a `systemd-creds` that talks to it.
struct Tpm {
    directory: PathBuf,
}

impl Tpm {
    fn start(directory: &Path) -> Self {
        let started = peer().arg("start").arg(directory).output().unwrap();
        assert!(started.status.success(), "{}", words(&started));
        Self { directory: directory.to_owned() }
    }

    /// The PATH on which `systemd-creds` knows this TPM.
    fn path(&self) -> std::ffi::OsString {
        let mut path = self.directory.join("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        path
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = peer().arg("stop").arg(&self.directory).status();
    }
}

fn peer() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/swtpm"))
}
