//! What the targets run: bytes of a hostile peer, both ways.

use std::io::Read;
use uzfs_proto::wire::{Call, FrameReader, Reply};

/// Longest message the target accepts.
const LIMIT: usize = 4096;

/// Hands out a stream in pieces whose sizes the input chooses.
struct Pieces<'a> {
    bytes: &'a [u8],
    step: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.step.min(self.bytes.len()).min(buf.len());
        let (now, later) = self.bytes.split_at(n);
        buf[..n].copy_from_slice(now);
        self.bytes = later;
        Ok(n)
    }
}

/// Frames never pass the limit, decoding never panics, and what decodes survives a round trip.
pub fn wire(data: &[u8]) {
    let Some((step, bytes)) = data.split_first() else { return };
    let step = usize::from(*step).max(1);
    let mut frames = FrameReader::new(Pieces { bytes, step }, LIMIT);
    while let Ok(Some(frame)) = frames.next_frame() {
        assert!(frame.len() <= LIMIT && !frame.contains(&0));
        if let Ok(call) = serde_json::from_slice::<Call>(&frame) {
            let again = serde_json::to_vec(&call).expect("a decoded call encodes");
            assert_eq!(serde_json::from_slice::<Call>(&again).expect("and decodes"), call);
            let parameters = call.parameters.unwrap_or_default();
            let _ = serde_json::from_value::<uzfs_proto::ImportPoolArgs>(parameters.clone());
            let _ = serde_json::from_value::<uzfs_proto::LoadKeyArgs>(parameters.clone());
            let _ = serde_json::from_value::<uzfs_proto::ListDatasetsArgs>(parameters);
        }
        if let Ok(reply) = serde_json::from_slice::<Reply>(&frame) {
            let parameters = reply.parameters.unwrap_or_default();
            let _ = serde_json::from_value::<uzfs_proto::GetPoolsReply>(parameters.clone());
            let _ = serde_json::from_value::<uzfs_proto::ListDatasetsReply>(parameters.clone());
            let _ = serde_json::from_value::<uzfs_proto::Failure>(parameters);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn runs_on_a_few_inputs() {
        for input in [&b""[..], b"\x01{\"method\":\"a.B\"}\0", b"\xff\0\0{}\0[[[[", b"\x03{\"continues\":true}\0"] {
            super::wire(input);
        }
    }
}
