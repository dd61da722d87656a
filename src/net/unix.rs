//! Unix sockets in the file system: taken by one server at a time, and gone with it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;

use mio::net::UnixListener;
use socket2::{Domain, SockAddr, Socket, Type};

/// Listens at a path, with these permissions. A socket that nobody listens on any more is replaced.
///
/// The socket comes into being beside the path and is put there when it can be connected to, so nobody meets it half
/// made.
///
/// # Errors
/// `AddrInUse` where somebody listens, or where a file is that is no socket; `InvalidInput` for a path that is too long
/// for a socket; else as of `bind(2)`, `chmod(2)`, `listen(2)` and `rename(2)`.
pub fn listen(path: &Path, mode: u32, backlog: u32) -> io::Result<(UnixListener, SocketFile)> {
    check_is_free(path)?;
    let fresh = fresh_path(path);
    let address = SockAddr::unix(&fresh).map_err(|_| {
        let shown = fresh.display();
        let reason =
            format!("{shown} is longer than the path of a socket may be; choose a shorter one");
        io::Error::new(io::ErrorKind::InvalidInput, reason)
    })?;
    // One of a process that had our number, and did not get far.
    let _ = fs::remove_file(&fresh);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&address)?;
    let placed = place(&socket, &fresh, path, mode, backlog);
    if placed.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    let file = placed?;
    socket.set_nonblocking(true)?;
    Ok((UnixListener::from_std(socket.into()), file))
}

/// Where the socket comes into being.
fn fresh_path(path: &Path) -> PathBuf {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".tmp.{}", process::id()));
    fresh.into()
}

fn place(
    socket: &Socket,
    fresh: &Path,
    path: &Path,
    mode: u32,
    backlog: u32,
) -> io::Result<SocketFile> {
    fs::set_permissions(fresh, Permissions::from_mode(mode))?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    let metadata = fs::symlink_metadata(fresh)?;
    fs::rename(fresh, path)?;
    Ok(SocketFile {
        path: path.to_owned(),
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

/// Nothing is there, or a socket that nobody listens on.
fn check_is_free(path: &Path) -> io::Result<()> {
    let in_use = |reason: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, reason));
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return in_use("a file that is no socket is there"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A server whose queue is full must not make this one wait.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Ok(()) | Err(_) => in_use("another server runs there"),
    }
}

/// A socket in the file system, which goes when this is dropped, if it is still ours.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|it| it.dev() == self.device && it.ino() == self.inode);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("{} could not be removed: {error}", self.path.display());
        }
    }
}
