#![no_main]
//! Any operation number with any body, any header and any ticket: refused, or exactly what encoding gives back.

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use uzfs_fsproto::{Ticket, recode, recode_reply, wire};
    if let Some((op, body)) = data.split_first() {
        if let Some(again) = recode(u16::from(*op), body.to_vec()) {
            assert_eq!(again, body);
        }
        if let Some(again) = recode_reply(u16::from(*op), body.to_vec()) {
            assert_eq!(again, body);
        }
    }
    if let Some(head) = data.first_chunk::<32>()
        && let Ok(decoded) = wire::RequestHead::decode(head)
    {
        assert_eq!(decoded.encode(), *head);
    }
    if let Some(head) = data.first_chunk::<16>()
        && let Ok(decoded) = wire::ReplyHead::decode(head)
    {
        assert_eq!(decoded.encode(), *head);
    }
    if let Ok(ticket) = Ticket::parse(data) {
        assert_eq!(Ticket::parse(ticket.to_text().as_bytes()), Ok(ticket));
    }
});
