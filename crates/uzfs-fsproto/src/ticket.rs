//! Tickets: small text files by which an extension finds the daemon and what it may mount.
//!
//! A volume ticket is the path resource that `mount -F -t zfs TICKET DIR` is given: it stands for one dataset and holds
//! everything that probing needs, because mount options reach an extension late or never. A daemon ticket lies in the
//! container that daemon and extensions share; with it, the pool of a device can be claimed. Both hold secrets and
//! must be readable by their owner only. One `word value` a line; unknown words are ignored.

use crate::types::Token;
use crate::wire::Malformed;
use crate::{Endpoint, VolumeInfo, volume};

/// Most bytes of a ticket.
pub const MAX_TICKET: usize = 8 << 10;

/// What a ticket is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TicketKind {
    /// One dataset.
    Volume(VolumeInfo),
    /// The daemon.
    Daemon,
}

/// A ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// What for.
    pub kind: TicketKind,
    /// Where the daemon listens, the best first.
    pub endpoints: Vec<Endpoint>,
    /// Secret to show.
    pub token: Token,
}

/// Identifier of a volume and of its container: the guids of pool and dataset, high bytes first. It depends on nothing
/// else, so every probe, every process and every member device gives the same. Dataset 0 is the pool's root dataset.
pub fn volume_uuid(pool_guid: u64, dataset_guid: u64) -> [u8; 16] {
    ((u128::from(pool_guid) << 64) | u128::from(dataset_guid)).to_be_bytes()
}

impl Ticket {
    /// The text.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        match &self.kind {
            TicketKind::Volume(v) => {
                out.push_str("uzfs-volume 1\n");
                out.push_str(&format!("dataset {}\n", escape(&v.name)));
                out.push_str(&format!("pool-guid {:016x}\ndataset-guid {:016x}\n", v.pool_guid, v.dataset_guid));
                out.push_str(&format!("root {:x}\nflags {:x}\n", v.root, v.flags));
            }
            TicketKind::Daemon => out.push_str("uzfs-daemon 1\n"),
        }
        for e in &self.endpoints {
            out.push_str(&format!("endpoint {e}\n"));
        }
        out.push_str(&format!("token {}\n", hex(&self.token)));
        out
    }

    /// Reads a ticket. The text is not trusted.
    pub fn parse(text: &[u8]) -> Result<Self, Malformed> {
        if text.len() > MAX_TICKET {
            return Err(Malformed);
        }
        let text = std::str::from_utf8(text).map_err(|_| Malformed)?;
        let mut lines = text.lines();
        let mut info = VolumeInfo::default();
        let for_volume = match lines.next() {
            Some("uzfs-volume 1") => true,
            Some("uzfs-daemon 1") => false,
            _ => return Err(Malformed),
        };
        let (mut endpoints, mut token, mut named) = (Vec::new(), None, false);
        for line in lines {
            let (word, value) = line.split_once(' ').ok_or(Malformed)?;
            let number = || u64::from_str_radix(value, 16).map_err(|_| Malformed);
            match word {
                "dataset" => (info.name, named) = (unescape(value)?, true),
                "pool-guid" => info.pool_guid = number()?,
                "dataset-guid" => info.dataset_guid = number()?,
                "root" => info.root = number()?,
                "flags" => info.flags = u32::try_from(number()?).map_err(|_| Malformed)?,
                "endpoint" => endpoints.push(value.parse()?),
                "token" => token = Some(unhex(value)?),
                _ => {}
            }
        }
        if endpoints.is_empty() || (for_volume && (!named || info.pool_guid == 0)) {
            return Err(Malformed);
        }
        let kind = if for_volume { TicketKind::Volume(info) } else { TicketKind::Daemon };
        Ok(Self { kind, endpoints, token: token.ok_or(Malformed)? })
    }

    /// Whether the volume can only be read.
    pub fn is_readonly(&self) -> bool {
        matches!(&self.kind, TicketKind::Volume(v) if v.flags & volume::READONLY != 0)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Result<Token, Malformed> {
    let mut token = [0; 32];
    if text.len() != 64 {
        return Err(Malformed);
    }
    for (i, byte) in token.iter_mut().enumerate() {
        let pair = text.get(2 * i..2 * i + 2).ok_or(Malformed)?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| Malformed)?;
    }
    Ok(token)
}

/// Names of datasets are ASCII; whatever else there is becomes `%XX`.
fn escape(name: &[u8]) -> String {
    let plain = |b: &u8| b.is_ascii_graphic() && *b != b'%';
    name.iter().map(|b| if plain(b) { char::from(*b).to_string() } else { format!("%{b:02x}") }).collect()
}

fn unescape(text: &str) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).ok_or(Malformed);
        out.push((digit(bytes.next())? * 16 + digit(bytes.next())?) as u8);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_round() {
        let info = VolumeInfo {
            pool_guid: 0x1234,
            dataset_guid: u64::MAX,
            root: 34,
            flags: volume::READONLY,
            name: b"tank/a b%\xff".to_vec(),
        };
        let endpoints = vec!["unix:/run/x y/s".parse().unwrap(), "tcp:127.0.0.1:4711".parse().unwrap()];
        let ticket = Ticket { kind: TicketKind::Volume(info), endpoints, token: [7; 32] };
        let text = ticket.to_text();
        assert_eq!(Ticket::parse(text.as_bytes()), Ok(ticket.clone()));
        assert!(ticket.is_readonly());
        let extra = format!("{text}later thing\n");
        assert_eq!(Ticket::parse(extra.as_bytes()), Ok(ticket));
        for cut in 0..text.len() - 1 {
            assert!(Ticket::parse(&text.as_bytes()[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn identifiers_depend_on_guids_only() {
        assert_eq!(volume_uuid(1, 2)[7], 1);
        assert_eq!(volume_uuid(1, 2)[15], 2);
        assert_ne!(volume_uuid(1, 2), volume_uuid(2, 1));
    }

    #[test]
    fn only_loopback_addresses() {
        for bad in ["tcp:10.0.0.1:1", "tcp:localhost:1", "tcp:127.0.0.1", "udp:127.0.0.1:1", "unix:", "unix:rel"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }
}
