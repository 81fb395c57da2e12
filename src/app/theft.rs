//! What a thief of the disk would get: on which disks the store and its key lie, and whether they are encrypted.
//!
//! Linux says so below `/sys/dev/block`: a partition lies in its disk, and what dm-crypt, LVM or RAID make of disks names
//! them as `slaves`.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{major, minor};

use crate::{
    admin::Finding,
    store::keyslots::{Kept, Keyslot, Kind},
};

const SYS: &str = "/sys/dev/block";
/// Where systemd keeps the host's key (systemd-creds(1)).
const HOST_KEY: &str = "/var/lib/systemd/credential.secret";
/// Deeper stacks of devices are not looked into.
const MAX_DEPTH: u32 = 8;

/// What a file lies on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Place {
    disks: BTreeSet<String>,
    /// By dm-crypt, below everything.
    encrypted: bool,
}

impl Place {
    /// Of a file or directory; `None` where that cannot be told.
    fn of(path: &Path) -> Option<Self> {
        // The daemon may not look into the directories of credentials: it takes the disk that they lie on.
        let facts = path.ancestors().map(fs::metadata).find(|facts| match facts {
            Err(error) => error.kind() != io::ErrorKind::PermissionDenied,
            Ok(_) => true,
        });
        let device = facts?.ok()?.dev();
        let device = if major(device) == 0 { mounted_from(device)? } else { device };
        let mut place = Self::default();
        place.look_at(&Path::new(SYS).join(format!("{}:{}", major(device), minor(device))), MAX_DEPTH)?;
        Some(place)
    }

    fn look_at(&mut self, device: &Path, depth: u32) -> Option<()> {
        let device = fs::canonicalize(device).ok()?;
        if fs::read_to_string(device.join("dm/uuid")).is_ok_and(|uuid| uuid.starts_with("CRYPT-")) {
            self.encrypted = true;
        }
        let below: Vec<PathBuf> =
            fs::read_dir(device.join("slaves")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        if !below.is_empty() && depth > 0 {
            return below.iter().try_for_each(|slave| self.look_at(slave, depth - 1));
        }
        let is_partition = device.join("partition").exists();
        let disk = if is_partition { device.parent()? } else { &device };
        self.disks.insert(disk.file_name()?.to_string_lossy().into_owned());
        Some(())
    }

    fn lies_with(&self, other: &Self) -> bool {
        !self.disks.is_disjoint(&other.disks)
    }
}

/// The device that a file system without one of its own, such as btrfs, is mounted from.
fn mounted_from(device: u64) -> Option<u64> {
    let number = format!("{}:{}", major(device), minor(device));
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some(&number))?;
    let source = mount.split_once(" - ")?.1.split(' ').nth(1)?;
    Some(fs::metadata(source).ok().filter(|_| source.starts_with("/dev/"))?.rdev())
}

/// Whether this machine has a TPM2 that systemd can use.
pub fn has_tpm2() -> bool {
    let tpms = fs::read_dir("/sys/class/tpm").into_iter().flatten().flatten();
    let is_2 = |path: PathBuf| fs::read_to_string(path.join("tpm_version_major")).is_ok_and(|v| v.trim() == "2");
    tpms.map(|entry| entry.path()).any(is_2) && Path::new("/dev/tpmrm0").exists()
}

/// Whether the records are safe once the disk of the store in `directory` is stolen.
pub fn look(directory: &Path, slots: &[Keyslot]) -> Finding {
    judge(Place::of(directory).as_ref(), slots, Place::of, has_tpm2())
}

fn judge(store: Option<&Place>, slots: &[Keyslot], place_of: impl Fn(&Path) -> Option<Place>, tpm2: bool) -> Finding {
    if store.is_some_and(|store| store.encrypted) {
        return Finding::good("keys: safe against a stolen disk: the store lies on an encrypted one (dm-crypt)");
    }
    let mut elsewhere = false;
    for slot in slots.iter().filter(|slot| !slot.damaged) {
        let (what, file) = match &slot.kind {
            Kind::Credential { kept: Kept::Plain, path } => ("the key", path.as_path()),
            Kind::Credential { kept: Kept::Host, .. } => ("the host's key, which opens the key,", Path::new(HOST_KEY)),
            Kind::Credential { kept: Kept::Tpm2, .. } | Kind::Passphrase | Kind::Recovery => continue,
        };
        let key = place_of(file);
        if key.as_ref().is_some_and(|key| key.encrypted) {
            continue;
        }
        if let (Some(key), Some(store)) = (&key, store)
            && !key.lies_with(store)
        {
            elsewhere = true;
            continue;
        }
        let remedy = if tpm2 { "--seal tpm2" } else { "--passphrase" };
        return Finding::bad(format!(
            "keys: not safe against a stolen disk, since {what} lies on the same disk as the store. Encrypt the disk, or \
             run `frontdesk key add {remedy}`, then `frontdesk key remove {}`",
            slot.id
        ));
    }
    Finding::good(if elsewhere {
        "keys: safe against a stolen disk as long as the key's own disk is not stolen with it"
    } else if slots.iter().any(|slot| matches!(slot.kind, Kind::Credential { .. })) {
        "keys: safe against a stolen disk: they open on this machine alone"
    } else {
        "keys: safe against a stolen disk: no key is kept on this machine"
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Timestamp;

    fn slot(kind: Kind) -> Keyslot {
        Keyslot { id: 7, kind, label: String::new(), made_at: Timestamp(0), damaged: false }
    }

    fn credential(kept: Kept) -> Keyslot {
        slot(Kind::Credential { kept, path: "/etc/kek".into() })
    }

    fn disk(name: &str, encrypted: bool) -> Place {
        Place { disks: [name.to_owned()].into(), encrypted }
    }

    #[test]
    fn a_thief_of_the_disk_must_not_have_the_key() {
        let (sda, sdb, luks) = (disk("sda", false), disk("sdb", false), disk("sda", true));
        let table = [
            (&sda, vec![credential(Kept::Plain)], Some(&sda), "frontdesk key remove 7"),
            (&sda, vec![credential(Kept::Plain)], None, "same disk"),
            (&sda, vec![credential(Kept::Host), slot(Kind::Recovery)], Some(&sda), "the host's key"),
            (&sda, vec![credential(Kept::Tpm2), credential(Kept::Plain)], Some(&sda), "same disk"),
        ];
        for (store, slots, key, words) in table {
            let found = judge(Some(store), &slots, |_| key.cloned(), false);
            assert!(!found.good && found.what.contains(words), "{}", found.what);
        }
        let table = [
            (&sda, vec![credential(Kept::Plain)], Some(&sdb), "own disk"),
            (&sda, vec![credential(Kept::Plain)], Some(&luks), "this machine"),
            (&luks, vec![credential(Kept::Plain)], Some(&sda), "dm-crypt"),
            (&sda, vec![credential(Kept::Tpm2)], Some(&sda), "this machine alone"),
            (&sda, vec![slot(Kind::Passphrase), slot(Kind::Recovery)], Some(&sda), "no key is kept"),
        ];
        for (store, slots, key, words) in table {
            let found = judge(Some(store), &slots, |_| key.cloned(), false);
            assert!(found.good && found.what.contains(words), "{}", found.what);
        }
        assert!(judge(None, &[credential(Kept::Host)], |_| None, true).what.contains("--seal tpm2"));
    }

    /// A tree as Linux shows it: LVM on dm-crypt on a partition.
    #[test]
    fn stacks_of_devices_are_looked_through() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path();
        let [lvm, crypt, partition] = ["dm-1", "dm-0", "sda/sda2"].map(|name| sys.join(name));
        for (device, uuid) in [(&lvm, "LVM-abc\n"), (&crypt, "CRYPT-LUKS2-abc\n")] {
            fs::create_dir_all(device.join("dm")).unwrap();
            fs::create_dir_all(device.join("slaves")).unwrap();
            fs::write(device.join("dm/uuid"), uuid).unwrap();
        }
        fs::create_dir_all(&partition).unwrap();
        fs::write(partition.join("partition"), "2\n").unwrap();
        std::os::unix::fs::symlink(&crypt, lvm.join("slaves/dm-0")).unwrap();
        std::os::unix::fs::symlink(&partition, crypt.join("slaves/sda2")).unwrap();
        let look = |device: &Path| {
            let mut place = Place::default();
            place.look_at(device, MAX_DEPTH).map(|()| place)
        };
        assert_eq!(look(&lvm), Some(disk("sda", true)));
        assert_eq!(look(&partition), Some(disk("sda", false)));
        assert_eq!(look(&sys.join("nothing")), None);
    }
}
