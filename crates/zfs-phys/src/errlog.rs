//! Keys of the persistent error logs (module/zfs/spa_errlog.c): a ZAP whose names are hexadecimal words with colons.
//! Without the feature `head_errlog` a name is `objset:object:level:blkid`; with it the log maps head datasets to
//! ZAPs whose names are `object:level:blkid:birth`.

/// A block with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ErrorKey {
    /// Object set; 0 when the name does not say it (new form).
    pub objset: u64,
    /// Object.
    pub object: u64,
    /// Level.
    pub level: i64,
    /// Block number.
    pub blkid: u64,
    /// Birth txg (new form).
    pub birth: u64,
}

fn words(name: &[u8]) -> Option<[u64; 4]> {
    let text = std::str::from_utf8(name).ok()?.trim_end_matches('\0');
    let mut it = text.split(':').map(|w| u64::from_str_radix(w, 16).ok());
    let out = [it.next()??, it.next()??, it.next()??, it.next()??];
    it.next().is_none().then_some(out)
}

impl ErrorKey {
    /// Reads a name of the old form.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        let [objset, object, level, blkid] = words(name)?;
        Some(Self { objset, object, level: level as i64, blkid, birth: 0 })
    }

    /// Reads a name of the form used inside a head dataset's ZAP.
    pub fn from_head_name(name: &[u8]) -> Option<Self> {
        let [object, level, blkid, birth] = words(name)?;
        Some(Self { objset: 0, object, level: level as i64, blkid, birth })
    }
}

impl ErrorKey {
    /// A name of the old form.
    pub fn name(&self) -> String {
        format!("{:x}:{:x}:{:x}:{:x}", self.objset, self.object, self.level, self.blkid)
    }

    /// A name of the form used inside a head dataset's ZAP.
    pub fn head_name(&self) -> String {
        format!("{:x}:{:x}:{:x}:{:x}", self.object, self.level, self.blkid, self.birth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let k = ErrorKey { objset: 0x36, object: 2, level: 0, blkid: 0x1f, birth: 0 };
        assert_eq!(ErrorKey::from_name(b"36:2:0:1f"), Some(k));
        assert_eq!(k.name(), "36:2:0:1f");
        let meta = ErrorKey { level: -1, ..k };
        assert_eq!(ErrorKey::from_name(meta.name().as_bytes()), Some(meta));
        let k = ErrorKey { objset: 0, object: 0x36, level: 2, blkid: 0, birth: 0x1f };
        assert_eq!(ErrorKey::from_head_name(b"36:2:0:1f"), Some(k));
        assert_eq!(k.head_name(), "36:2:0:1f");
        assert_eq!(ErrorKey::from_name(b"36:2:0:1f:0"), None);
        assert_eq!(ErrorKey::from_name(b"36:x:0:1f"), None);
    }
}
