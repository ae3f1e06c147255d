//! Finds and reserves a block 127.A.B.0/24 that no other lab on this machine has.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::TcpListener;
use std::path::Path;

use crate::layout::{
    BOUNCER_PORT, Block, HTTP_PORT, POSTGRES_PORT, REDIS_PORT, RESERVATION_PORT, SLOT_PORTS,
    SSH_PORT,
};

/// Blocks from 127.16.0 on: distributions use addresses in 127.0 and 127.1 for themselves.
const FIRST_A: u16 = 16;
const BLOCKS: u16 = (255 - FIRST_A) * 256;
/// Far more labs than one machine can run.
const CANDIDATES: u16 = 256;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BlockError {
    #[error("cannot use port {port} on loopback: another program listens there on every address")]
    PortTaken { port: u16 },
    #[error("cannot find a free block of loopback addresses: {CANDIDATES} are in use")]
    NoneFree,
    #[error("cannot listen on loopback")]
    Refused(#[source] io::Error),
}

impl BlockError {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::PortTaken { port } => Some(format!("ss -ltnp 'sport = :{port}'")),
            Self::NoneFree | Self::Refused(_) => None,
        }
    }
}

/// Reserves a block for the lab in `dir`: the first free one, from where its name hashes to. It is ours while the
/// listener lives.
pub(crate) fn reserve(dir: &Path) -> Result<(Block, TcpListener), BlockError> {
    let mut hasher = DefaultHasher::new();
    dir.hash(&mut hasher);
    let start = u16::try_from(hasher.finish() % u64::from(BLOCKS)).unwrap_or_default();
    for step in 0..CANDIDATES {
        let [a, b] = (FIRST_A * 256 + (start + step) % BLOCKS).to_be_bytes();
        let block = Block { a, b };
        match TcpListener::bind(block.reservation()) {
            Ok(reservation) => {
                all_ports_free(block)?;
                return Ok((block, reservation));
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(BlockError::Refused(error)),
        }
    }
    all_ports_free(Block { a: 255, b: 255 })?;
    Err(BlockError::NoneFree)
}

/// Somebody who listens on 0.0.0.0 has the port in every block.
fn all_ports_free(block: Block) -> Result<(), BlockError> {
    let fixed = [
        RESERVATION_PORT,
        HTTP_PORT,
        SSH_PORT,
        POSTGRES_PORT,
        BOUNCER_PORT,
        REDIS_PORT,
    ];
    for port in fixed.into_iter().chain(SLOT_PORTS) {
        match TcpListener::bind(block.spare(port)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(BlockError::PortTaken { port });
            }
            Err(error) => return Err(BlockError::Refused(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::reserve;

    #[test]
    fn two_labs_get_two_blocks_and_a_block_comes_back() {
        let dir = Path::new("/nowhere/block-test");
        let (first, held) = reserve(dir).expect("a block");
        let (second, _also_held) = reserve(dir).expect("a block");
        assert_ne!(first, second);
        drop(held);
        let (third, _) = reserve(dir).expect("a block");
        assert_eq!(third, first);
    }
}
