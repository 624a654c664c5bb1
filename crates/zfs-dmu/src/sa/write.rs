//! Changing system attributes: choosing a layout, or registering a new one, and dividing values between bonus buffer and
//! spill block.
//!
//! A change packs all attributes of the object anew; values that are only replaced land where they were. Everything
//! stays in the bonus buffer while it fits; else as many attributes, in order, as fit beside the pointer to a spill
//! block, which takes the others.
//!
//! Lock order: what was added to the registry, then the ZAPs that hold it.

use super::{SaHandle, SaRegistry, ZplAttr};
use crate::liveset::ObjectSpec;
use crate::objset::Objset;
use crate::txg::Tx;
use crate::zap::{Zap, ZapSpec};
use std::collections::HashMap;
use std::sync::Arc;
use zfs_phys::Endian;
use zfs_phys::blkptr::BLKPTR_SIZE;
use zfs_phys::dnode::{DNODE_CORE_SIZE, DNODE_SIZE};
use zfs_phys::enums::DmuObjectType;
use zfs_phys::sa::{SA_LAYOUTS, SA_REGISTRY, SaAttr, SaSwap, SaValue, ZPL_ATTRS, encode, encoded_size};
use zfs_zio::{Error, ErrorKind, Result};

/// First number of a layout that is stored: 0 is the old znode, 1 the empty one.
const FIRST_LAYOUT: u16 = 2;
/// Attributes that are registered together with the first: those before `ZPL_SEQ`, which older releases lack.
const USUAL_ATTRS: usize = ZplAttr::Projid as usize + 1;

/// What was registered since the registry was loaded.
#[derive(Debug, Default)]
pub(super) struct Added {
    pub(super) attrs: HashMap<u16, SaAttr>,
    pub(super) zpl: HashMap<usize, u16>,
    pub(super) layouts: HashMap<u16, Vec<u16>>,
    /// All of `attrs` of the registry that are stored, once looked at.
    stored: bool,
}

/// A value to be packed.
struct Item {
    num: u16,
    data: Vec<u8>,
}

fn zap_of(objset: &Arc<Objset>, tx: &Tx, master: u64, name: &str, object_type: DmuObjectType) -> Result<Zap> {
    let master = Zap::open(objset, master)?;
    if let Some(object) = master.lookup_u64(name.as_bytes())? {
        return Zap::open(objset, object);
    }
    let spec = ObjectSpec { object_type, ..ObjectSpec::default() };
    let made = Zap::create_with(objset, tx, &spec, &ZapSpec::default())?;
    master.add(tx, name.as_bytes(), &[made.dnode().object()])?;
    Ok(made)
}

impl SaRegistry {
    /// Number of an attribute; registers it when it has none, with all the usual ones.
    fn number_or_register(&self, tx: &Tx, objset: &Arc<Objset>, attr: ZplAttr) -> Result<u16> {
        let mut added = self.added.write();
        let known = self.zpl.get(attr as usize).copied().flatten();
        if let Some(num) = known.or_else(|| added.zpl.get(&(attr as usize)).copied())
            && (added.stored || (attr as usize) >= zfs_phys::sa::SA_LEGACY_ATTRS)
        {
            return Ok(num);
        }
        let zap = zap_of(objset, tx, self.master(), SA_REGISTRY, DmuObjectType::SA_ATTR_REGISTRATION)?;
        let mut next = 0;
        let mut names = HashMap::new();
        for e in zap.iter() {
            let e = e?;
            let stored = SaAttr::decode(e.value.first());
            next = next.max(stored.num + 1);
            names.insert(e.name().to_vec(), stored.num);
        }
        for (index, (name, length, swap)) in ZPL_ATTRS.iter().enumerate() {
            if names.contains_key(name.as_bytes()) || (index >= USUAL_ATTRS && index != attr as usize) {
                continue;
            }
            let legacy = index < zfs_phys::sa::SA_LEGACY_ATTRS;
            let num = if legacy { index as u16 } else { next.max(zfs_phys::sa::SA_LEGACY_ATTRS as u16) };
            next = next.max(num + 1);
            let new = SaAttr { num, length: *length, swap: *swap };
            zap.add(tx, name.as_bytes(), &[new.encode()])?;
            added.attrs.insert(num, new);
            added.zpl.insert(index, num);
        }
        added.stored = true;
        let number = known.or_else(|| added.zpl.get(&(attr as usize)).copied());
        number
            .or_else(|| names.get(attr.name().as_bytes()).copied())
            .ok_or_else(|| Error::new(ErrorKind::Bug, "an attribute that cannot be registered"))
    }

    /// Registered length of an attribute, and how its bytes are ordered; 0 when it is variable.
    fn shape(&self, num: u16) -> Option<(u16, SaSwap)> {
        let known = self.attrs.get(&num).copied().or_else(|| self.added.read().attrs.get(&num).copied());
        known.map(|a| (a.length, a.swap))
    }

    /// Number of the layout that lists these attributes; makes one when there is none.
    fn layout_for(&self, tx: &Tx, objset: &Arc<Objset>, attrs: &[u16]) -> Result<u16> {
        let find = |layouts: &HashMap<u16, Vec<u16>>| {
            layouts.iter().find(|(n, l)| **n >= FIRST_LAYOUT && *l == attrs).map(|(n, _)| *n)
        };
        if let Some(n) = find(&self.layouts).or_else(|| find(&self.added.read().layouts)) {
            return Ok(n);
        }
        let mut added = self.added.write();
        if let Some(n) = find(&added.layouts) {
            return Ok(n);
        }
        let zap = zap_of(objset, tx, self.master(), SA_LAYOUTS, DmuObjectType::SA_ATTR_LAYOUTS)?;
        let highest = self.layouts.keys().chain(added.layouts.keys()).copied().max().unwrap_or(1);
        let number = (highest + 1).max(FIRST_LAYOUT);
        let image: Vec<u8> = attrs.iter().flat_map(|a| a.to_be_bytes()).collect();
        zap.add_ints(tx, number.to_string().as_bytes(), 2, &image)?;
        added.layouts.insert(number, attrs.to_vec());
        Ok(number)
    }
}

/// Brings a value of the other byte order into the machine's.
fn to_native(data: &[u8], endian: Endian, swap: SaSwap) -> Result<Vec<u8>> {
    let mut out = data.to_vec();
    if endian != Endian::NATIVE {
        let width = match swap {
            SaSwap::U64 => 8,
            SaSwap::U32 => 4,
            SaSwap::U16 => 2,
            SaSwap::U8 => 1,
            SaSwap::Acl | SaSwap::Unknown(_) => {
                return Err(Error::unsupported("changing attributes that a machine of the other byte order wrote"));
            }
        };
        out.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
    Ok(out)
}

impl SaHandle {
    /// Sets attributes, in the machine's byte order, and keeps the others; new ones come behind those that are there,
    /// in the order given. The handle still shows what was before.
    pub fn update(&self, tx: &Tx, objset: &Arc<Objset>, attrs: &[(ZplAttr, Vec<u8>)]) -> Result<()> {
        if let Some(bonus) = self.patched(attrs) {
            return self.dnode.set_bonus(tx, DmuObjectType::SA, &bonus);
        }
        if self.stays_legacy()? {
            return self.update_legacy(tx, objset, attrs);
        }
        let (mut items, mut outside) = (Vec::new(), None);
        if self.legacy {
            let (all, acl) = self.converted(objset)?;
            outside = acl;
            self.put(tx, objset, &mut items, &all)?;
        } else {
            items = self.items()?;
        }
        self.put(tx, objset, &mut items, attrs)?;
        self.store(tx, objset, &items)?;
        outside.map_or(Ok(()), |object| objset.free_object(tx, object))
    }

    /// Puts attributes among those that are to be stored.
    fn put(&self, tx: &Tx, objset: &Arc<Objset>, items: &mut Vec<Item>, attrs: &[(ZplAttr, Vec<u8>)]) -> Result<()> {
        for (attr, data) in attrs {
            let num = self.registry.number_or_register(tx, objset, *attr)?;
            let length = self.registry.shape(num).map_or(0, |s| usize::from(s.0));
            if length != 0 && length != data.len() {
                return Err(self.invalid("storing an attribute of the wrong length"));
            }
            match items.iter_mut().find(|i| i.num == num) {
                Some(item) => item.data.clone_from(data),
                None => items.push(Item { num, data: data.clone() }),
            }
        }
        Ok(())
    }

    /// The bonus buffer with values in the place of others of the same lengths; nothing when that is not all there is to
    /// do. Most changes are of this kind: times, sizes, links.
    fn patched(&self, attrs: &[(ZplAttr, Vec<u8>)]) -> Option<Vec<u8>> {
        if self.legacy || self.bonus.endian != Endian::NATIVE {
            return None;
        }
        let mut bytes = self.bonus.bytes.clone();
        for (attr, data) in attrs {
            let num = self.registry.number(*attr)?;
            let place = self.bonus.places.iter().find(|p| p.num == num && p.len == data.len())?;
            bytes.get_mut(place.offset..place.offset + place.len)?.copy_from_slice(data);
        }
        Some(bytes)
    }

    /// Removes an attribute, if the object has it.
    pub fn remove(&self, tx: &Tx, objset: &Arc<Objset>, attr: ZplAttr) -> Result<()> {
        let Some(num) = self.registry.number(attr).filter(|_| !self.legacy) else { return Ok(()) };
        let mut items = self.items()?;
        let before = items.len();
        items.retain(|i| i.num != num);
        if items.len() == before { Ok(()) } else { self.store(tx, objset, &items) }
    }

    pub(super) fn invalid(&self, what: &'static str) -> Error {
        Error::invalid(what).at(&self.dnode.ctx.bookmark(self.dnode.object(), 0, 0))
    }

    /// All attributes of the object, in order.
    fn items(&self) -> Result<Vec<Item>> {
        let mut out = Vec::new();
        for num in self.numbers()? {
            let (Some((data, endian)), Some((_, swap))) = (self.get_num(num)?, self.registry.shape(num)) else {
                continue;
            };
            out.push(Item { num, data: to_native(data, endian, swap)? });
        }
        Ok(out)
    }

    fn store(&self, tx: &Tx, objset: &Arc<Objset>, items: &[Item]) -> Result<()> {
        let phys = self.dnode.phys();
        let fixed = DNODE_CORE_SIZE + usize::from(phys.nblkptr) * BLKPTR_SIZE;
        let room = (phys.slots() * DNODE_SIZE).saturating_sub(fixed);
        let had_spill = phys.spill.is_some();
        drop(phys);
        let variable = |num: u16| self.registry.shape(num).is_none_or(|s| s.0 == 0);
        let values: Vec<SaValue<'_>> =
            items.iter().map(|i| SaValue { data: &i.data, variable: variable(i.num) }).collect();
        let fits = |n: usize, room: usize| encoded_size(values.get(..n).unwrap_or_default()) <= room;
        let mut first = items.len();
        if !fits(first, room) {
            let beside = room.saturating_sub(BLKPTR_SIZE);
            first = (0..items.len()).take_while(|n| fits(n + 1, beside)).count();
        }
        let pack = |range: std::ops::Range<usize>| -> Result<Vec<u8>> {
            let nums: Vec<u16> = items.get(range.clone()).unwrap_or_default().iter().map(|i| i.num).collect();
            let layout = self.registry.layout_for(tx, objset, &nums)?;
            Ok(encode(layout, values.get(range).unwrap_or_default(), Endian::NATIVE)?)
        };
        let bonus = pack(0..first)?;
        let spill = if first < items.len() { Some(pack(first..items.len())?) } else { None };
        if had_spill && spill.is_none() {
            self.dnode.set_spill(tx, None)?;
        }
        self.dnode.set_bonus(tx, DmuObjectType::SA, &bonus)?;
        match &spill {
            Some(bytes) => self.dnode.set_spill(tx, Some(bytes)),
            None => Ok(()),
        }
    }
}
