//! Changes to the meta object set in the words of the dataset layer.

use std::sync::Arc;
use zfs_dmu::txg::Tx;
use zfs_dmu::zap::ZapSpec;
use zfs_dmu::{ErrorKind, ObjectSpec, Objset, Result, Zap};
use zfs_phys::enums::DmuObjectType as Ot;

/// Metadata in words (`DMU_OTN_UINT64_METADATA`).
pub(super) const UINT64_METADATA: Ot = Ot(0xc3);
/// A table that is metadata (`DMU_OTN_ZAP_METADATA`).
pub(super) const ZAP_METADATA: Ot = Ot(0xc4);

/// Allocates an object without contents.
pub(super) fn alloc(mos: &Arc<Objset>, tx: &Tx, ty: Ot, bonus_type: Ot, bonus: &[u8]) -> Result<u64> {
    alloc_sized(mos, tx, ty, 0, bonus_type, bonus)
}

/// Allocates an object with blocks of `block_size` bytes; 0 for the smallest.
pub(super) fn alloc_sized(
    mos: &Arc<Objset>,
    tx: &Tx,
    object_type: Ot,
    block_size: u32,
    bonus_type: Ot,
    bonus: &[u8],
) -> Result<u64> {
    let spec = ObjectSpec { object_type, block_size, bonus_type, bonus_len: bonus.len(), ..ObjectSpec::default() };
    let dnode = mos.allocate(tx, &spec)?;
    dnode.set_bonus(tx, bonus_type, bonus)?;
    Ok(dnode.object())
}

/// Stores the bonus of an object; its type stays.
pub(super) fn set_bonus(mos: &Arc<Objset>, tx: &Tx, object: u64, bonus: &[u8]) -> Result<()> {
    let dnode = mos.dnode(object)?;
    let ty = dnode.phys().bonustype;
    dnode.set_bonus(tx, ty, bonus)
}

/// Frees an object.
pub(super) fn free(mos: &Arc<Objset>, tx: &Tx, object: u64) -> Result<()> {
    mos.free_object(tx, object)
}

/// Makes a table.
pub(super) fn zap_create(mos: &Arc<Objset>, tx: &Tx, ty: Ot) -> Result<u64> {
    Zap::create(mos, tx, ty, 0)
}

/// Makes a table whose names are folded or normalized.
pub(super) fn zap_create_norm(mos: &Arc<Objset>, tx: &Tx, ty: Ot, normflags: u64) -> Result<u64> {
    Zap::create(mos, tx, ty, normflags)
}

/// Makes a table whose object has a bonus.
pub(super) fn zap_create_bonus(mos: &Arc<Objset>, tx: &Tx, ty: Ot, bonus_type: Ot, bonus: &[u8]) -> Result<u64> {
    let spec = ObjectSpec { object_type: ty, bonus_type, bonus_len: bonus.len(), ..ObjectSpec::default() };
    let object = Zap::create_with(mos, tx, &spec, &ZapSpec::default())?.dnode().object();
    set_bonus(mos, tx, object, bonus)?;
    Ok(object)
}

/// Adds an entry of one word, which is new.
pub(super) fn zap_add(mos: &Arc<Objset>, tx: &Tx, zap: u64, name: &str, value: u64) -> Result<()> {
    Zap::open(mos, zap)?.add(tx, name.as_bytes(), &[value])
}

/// Sets an entry of one word.
pub(super) fn zap_set(mos: &Arc<Objset>, tx: &Tx, zap: u64, name: &str, value: u64) -> Result<()> {
    zap_set_words(mos, tx, zap, name, &[value])
}

/// Sets an entry of several words.
pub(super) fn zap_set_words(mos: &Arc<Objset>, tx: &Tx, zap: u64, name: &str, value: &[u64]) -> Result<()> {
    Zap::open(mos, zap)?.update(tx, name.as_bytes(), value)
}

/// Sets an entry of text, which is stored with its terminating zero.
pub(super) fn zap_set_text(mos: &Arc<Objset>, tx: &Tx, zap: u64, name: &str, value: &str) -> Result<()> {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    Zap::open(mos, zap)?.update_ints(tx, name.as_bytes(), 1, &bytes)
}

/// Removes an entry, which must be there.
pub(super) fn zap_remove(mos: &Arc<Objset>, tx: &Tx, zap: u64, name: &str) -> Result<()> {
    Zap::open(mos, zap)?.remove(tx, name.as_bytes())
}

/// Removes an entry if it is there.
pub(super) fn zap_remove_any(mos: &Arc<Objset>, tx: &Tx, zap: u64, name: &str) -> Result<()> {
    match zap_remove(mos, tx, zap, name) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// An entry of one word.
pub(super) fn zap_get(mos: &Arc<Objset>, zap: u64, name: &str) -> Result<Option<u64>> {
    Zap::open(mos, zap)?.lookup_u64(name.as_bytes())
}

/// Whether there is an entry.
pub(super) fn zap_has(mos: &Arc<Objset>, zap: u64, name: &str) -> Result<bool> {
    Ok(Zap::open(mos, zap)?.lookup(name.as_bytes())?.is_some())
}
