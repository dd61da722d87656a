//! Unix sockets in the file system: taken by one server at a time, and gone with it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process;

use mio::net::{UnixListener, UnixStream};
use socket2::{Domain, SockAddr, Socket, Type};

/// Who may connect to a socket, by its file.
#[derive(Clone, Copy, Debug)]
pub struct FileAccess<'a> {
    /// Permissions.
    pub mode: u32,
    /// Group, by its name or its number. None: that of the process.
    pub group: Option<&'a str>,
}

/// Listens at a path, with these permissions. A socket that nobody listens on any more is replaced.
///
/// The socket comes into being beside the path and is put there when it can be connected to, so nobody meets it half
/// made.
///
/// # Errors
/// `AddrInUse` where somebody listens, or where a file is that is no socket; `InvalidInput` for a path that is too long
/// for a socket; else as of `bind(2)`, `chmod(2)`, `listen(2)` and `rename(2)`.
pub fn listen(
    path: &Path,
    access: FileAccess<'_>,
    backlog: u32,
) -> io::Result<(UnixListener, SocketFile)> {
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
    let placed = place(&socket, &fresh, path, access, backlog);
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
    access: FileAccess<'_>,
    backlog: u32,
) -> io::Result<SocketFile> {
    fs::set_permissions(fresh, Permissions::from_mode(access.mode))?;
    if let Some(group) = access.group {
        give_to_group(fresh, group)?;
    }
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    let metadata = fs::symlink_metadata(fresh)?;
    fs::rename(fresh, path)?;
    Ok(SocketFile {
        path: path.to_owned(),
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

fn give_to_group(file: &Path, group: &str) -> io::Result<()> {
    let number = match group.parse() {
        Ok(number) => number,
        Err(_) => group_number(&fs::read_to_string("/etc/group")?, group).ok_or_else(|| {
            let reason = format!(
                "/etc/group has no group {group}; one that is elsewhere is given by its number"
            );
            io::Error::new(io::ErrorKind::InvalidInput, reason)
        })?,
    };
    chown(file, None, Some(number)).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let reason = format!(
                "the socket cannot be given to the group {group}, which the server's user is not in (SupplementaryGroups= of \
                 the service)"
            );
            io::Error::new(io::ErrorKind::PermissionDenied, reason)
        }
        _ => error,
    })
}

/// The number of a group in a text as group(5) describes it.
fn group_number(groups: &str, name: &str) -> Option<u32> {
    let mut rows = groups.lines().map(|line| line.split(':'));
    let mut row = rows.find(|row| row.clone().next() == Some(name))?;
    row.nth(2)?.parse().ok()
}

/// Process and user of a peer, as in `unix:4711/1000`. `unix` where the system does not tell.
pub fn peer(stream: &UnixStream) -> String {
    match credentials(stream) {
        Some((process, user)) => format!("unix:{process}/{user}"),
        None => "unix".to_owned(),
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the standard library has no SO_PEERCRED yet")]
fn credentials(stream: &UnixStream) -> Option<(i32, u32)> {
    use std::os::fd::AsRawFd;

    let mut found = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let size = size_of::<libc::ucred>() as libc::socklen_t;
    let mut length = size;
    // SAFETY: the descriptor is open as long as the stream is borrowed, and the kernel writes at most `length` bytes,
    // which is the size of what the pointer leads to.
    let outcome = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut length,
        )
    };
    (outcome == 0 && length == size).then_some((found.pid, found.uid))
}

#[cfg(not(target_os = "linux"))]
fn credentials(_: &UnixStream) -> Option<(i32, u32)> {
    None
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_by_name() {
        let groups = "root:x:0:\nwww-data:x:33:umbel\n\nbroken\nworse:x:\n";
        assert_eq!(group_number(groups, "www-data"), Some(33));
        for name in ["www", "broken", "worse", "nobody", ""] {
            assert_eq!(group_number(groups, name), None, "{name}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn peer_is_told_by_process_and_user() {
        let (one, _other) = UnixStream::pair().expect("a pair");
        let user = fs::metadata("/proc/self").expect("it is there").uid();
        assert_eq!(peer(&one), format!("unix:{}/{user}", process::id()));
    }
}
