//! What answers on a server, and what docs/security.md says.

use std::collections::BTreeSet;

use regionwise_lab::guests::Guest;

/// Prints those of some ports of an address that do not keep silent, and how they answer.
const SCAN: &str = r#"
import asyncio
async def look(port, gate):
    async with gate:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection("ADDRESS", port), WITHIN)
            writer.close()
            return port, "open"
        except ConnectionRefusedError:
            return port, "refused"
        except (TimeoutError, asyncio.TimeoutError):
            return port, "silent"
async def main():
    gate = asyncio.Semaphore(TOGETHER)
    found = await asyncio.gather(*(look(port, gate) for port in [PORTS]))
    print(*(f"{port}:{how}" for port, how in found if how != "silent"))
asyncio.run(main())
"#;

/// A Python program without single quotes that tells which of these ports answer there. Few at a time, and with patience: what
/// an emulated network loses would look closed.
pub(crate) fn scan(address: &str, ports: &BTreeSet<u16>) -> String {
    program(address, ports, 8, 100)
}

/// As [`scan`], of thousands of ports.
pub(crate) fn wide_scan(address: &str, ports: &BTreeSet<u16>) -> String {
    program(address, ports, 2, 500)
}

fn program(address: &str, ports: &BTreeSet<u16>, within_seconds: u8, together: u16) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    SCAN.replace("ADDRESS", address)
        .replace("WITHIN", &within_seconds.to_string())
        .replace("TOGETHER", &together.to_string())
        .replace("PORTS", &ports.join(","))
}

/// The ports that [`scan`] has printed.
pub(crate) fn answered(said: &[u8]) -> Vec<u16> {
    let said = String::from_utf8_lossy(said);
    let ports = said.split_whitespace();
    let ports = ports.map(|found| found.split_once(':').unwrap().0);
    let mut ports: Vec<u16> = ports.map(|port| port.parse().unwrap()).collect();
    ports.sort_unstable();
    ports
}

/// Whatever listens, on whichever address, and what usually does.
pub(crate) fn worth_asking(guest: &Guest) -> BTreeSet<u16> {
    let listening = guest
        .ssh("ss -Hltn | awk '{ sub(/.*:/, \"\", $4); print $4 }'")
        .unwrap();
    let listening = listening.split_whitespace();
    let listening = listening.map(|port| port.parse().unwrap());
    listening.chain(1..200).chain([443]).collect()
}

/// The TCP ports of a server that carries these, of docs/security.md: those that are open to one of `to`.
pub(crate) fn documented(carries: &[&str], to: &[&str]) -> Vec<u16> {
    let table = include_str!("../../docs/security.md")
        .lines()
        .skip_while(|line| !line.starts_with("| on |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let mut ports = Vec::new();
    for row in table {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, on, port, source, ..] = cells[..] else {
            panic!("{row}");
        };
        if carries.contains(&on) && to.iter().any(|who| source.contains(who)) {
            let tcp = port
                .split(", ")
                .filter_map(|port| port.strip_suffix("/tcp"));
            ports.extend(tcp.map(|port| port.parse::<u16>().unwrap()));
        }
    }
    ports.sort_unstable();
    assert!(!ports.is_empty(), "nothing is documented for {to:?}");
    ports
}
