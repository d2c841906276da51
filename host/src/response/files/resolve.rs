//! Opening a path below a root so that no symbolic link leads out of it, whatever happens to the
//! folder meanwhile: the kernel resolves (`openat2`, beneath); where it cannot, or a link inside the
//! root is absolute, the true path is compared with the root's.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Not to wait for a pipe's writer, and not to hand the file to child processes.
const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOCTTY);

/// Opens what is at `relative` below `root`, file or folder. `root` has no symbolic links in it.
pub(super) fn open(root: &Path, relative: &Path) -> io::Result<(File, Metadata)> {
    let relative = if relative.as_os_str().is_empty() {
        Path::new(".")
    } else {
        relative
    };
    let folder = rustix::fs::open(
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(&folder, relative, FLAGS, Mode::empty(), beneath) {
        Ok(file) => File::from(file),
        Err(Errno::XDEV | Errno::NOSYS | Errno::PERM | Errno::AGAIN) => {
            open_compared(root, relative)?
        }
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

/// The way without `openat2`: what the path truly is must lie below the root, and is opened by that
/// name, whose last part then may not be a link.
fn open_compared(root: &Path, relative: &Path) -> io::Result<File> {
    let truly = std::fs::canonicalize(root.join(relative))?;
    if !truly.starts_with(root) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "a link leads out of the root",
        ));
    }
    let file = rustix::fs::openat(CWD, &truly, FLAGS | OFlags::NOFOLLOW, Mode::empty())?;
    Ok(File::from(file))
}

/// nginx's status for a file that does not open.
pub(super) fn status(error: &io::Error) -> u16 {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP | Errno::NXIO) => 404,
        Some(Errno::ACCESS | Errno::PERM) => 403,
        None if error.kind() == io::ErrorKind::PermissionDenied => 403,
        Some(_) | None => 500,
    }
}
