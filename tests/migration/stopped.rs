//! A client that is stopped: it has sent a statement, and never reads the answer, while its socket stays open.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::servers::Database;

pub(crate) struct Stopped {
    pub(crate) pid: i32,
    _socket: TcpStream,
}

impl Stopped {
    /// Logs in as the mover, takes on its role, sends `sql` and stops. `tcp_user_timeout` is what frees its locks if the
    /// server is stuck in sending.
    pub(crate) fn sends(database: &Database, sql: &str) -> Self {
        let mut socket = TcpStream::connect(("127.0.0.1", database.server.port)).unwrap();
        let options = "-c tcp_user_timeout=3000 -c idle_in_transaction_session_timeout=5s";
        let mut startup = 196_608_u32.to_be_bytes().to_vec();
        for text in [
            "user",
            "mover",
            "database",
            &database.name,
            "options",
            options,
            "",
        ] {
            startup.extend(text.as_bytes());
            startup.push(0);
        }
        send(&mut socket, None, &startup);
        let mut pid = 0;
        read_until_ready(&mut socket, |kind, body| {
            if kind == b'K' {
                pid = i32::from_be_bytes(body[..4].try_into().unwrap());
            }
        });
        send(
            &mut socket,
            Some(b'Q'),
            b"SET ROLE regionwise_move; SET search_path = pg_catalog\0",
        );
        read_until_ready(&mut socket, |_, _| ());
        let mut statement = sql.as_bytes().to_vec();
        statement.push(0);
        send(&mut socket, Some(b'Q'), &statement);
        Self {
            pid,
            _socket: socket,
        }
    }
}

fn send(socket: &mut TcpStream, kind: Option<u8>, body: &[u8]) {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    let mut message: Vec<u8> = kind.into_iter().collect();
    message.extend(length);
    message.extend(body);
    socket.write_all(&message).unwrap();
}

fn read_until_ready(socket: &mut TcpStream, mut each: impl FnMut(u8, &[u8])) {
    loop {
        let mut head = [0; 5];
        socket.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes(head[1..].try_into().unwrap());
        let mut body = vec![0; usize::try_from(length - 4).unwrap()];
        socket.read_exact(&mut body).unwrap();
        assert_ne!(head[0], b'E', "{}", String::from_utf8_lossy(&body));
        each(head[0], &body);
        if head[0] == b'Z' {
            return;
        }
    }
}
