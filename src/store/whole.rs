//! Files that are there whole or not at all, whenever the power goes.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Writes a file whole, for its owner alone: under the same name with `.new` behind it, synced, renamed, its directory
/// synced. Gives it, open for reading and writing. Where that fails, what stood there before still does.
pub fn write(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<File> {
    let new = path.with_added_extension("new");
    let make = || {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        fill(&mut file)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        Ok(file)
    };
    // On a full disk every byte counts; where even that fails, a start removes it.
    let file = make().inspect_err(|_: &io::Error| drop(fs::remove_file(&new)))?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))?;
    Ok(file)
}

/// Makes a rename, a creation or a removal in `directory` durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_file_is_there_whole_or_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        write(&path, |file| file.write_all(b"first")).unwrap();
        let failed = write(&path, |file| file.write_all(b"sec").and(Err(io::ErrorKind::StorageFull.into())));
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left of the second");
    }
}
