//! What datasets are to each other: promotion, bookmarks, holds; volumes being made; the history of commands.

use super::change::{Values, check_limits, found, is_limited, path_of, set_all};
use super::import::pool_of;
use super::{Engine, Imported, failure};
use std::sync::Arc;
use uzfs_proto::{
    Caller, CreateBookmarksArgs, CreateDatasetArgs, Empty, Failure, FailureCode, HoldArgs, HoldEntry, ListHoldsArgs,
    ListHoldsReply, LogHistoryArgs, PromoteArgs, Raw, SnapshotSpaceArgs, SnapshotSpaceReply, U64,
};
use zfs_phys::enums::ObjsetType;
use zfs_spa::dslw::{NewObjset, NewValue};
use zfs_zio::{VdevConfig, VdevKind};

/// A refreservation that is to be as large as the volume may become (`auto`).
pub(super) const AUTO: u64 = u64::MAX;
/// Block size of volumes unless told otherwise.
const VOLBLOCK: u64 = 16 << 10;
/// Pointers in an indirect block, and its size: `DNODES_PER_LEVEL`, `DN_MAX_INDBLKSHIFT`.
const POINTERS: u64 = 1024;
const INDIRECT: u64 = 128 << 10;
/// Largest usual block (`SPA_OLD_MAXBLOCKSIZE`): space is told as if all blocks were of that size.
const TYPICAL: u64 = 128 << 10;

impl Engine {
    fn same_pool(names: impl Iterator<Item = impl AsRef<str>>) -> Result<Option<String>, Failure> {
        let mut first: Option<String> = None;
        for name in names {
            let name = name.as_ref();
            let one = first.get_or_insert_with(|| name.to_owned());
            if pool_of(one) != pool_of(name) {
                let text = "all of one request belong to one pool";
                return Err(Failure::new(FailureCode::InvalidArgument, text).about(name));
            }
        }
        Ok(first)
    }

    pub(super) fn promote(&self, args: &PromoteArgs) -> Result<Empty, Failure> {
        let imported = self.writable(&args.name)?;
        let path = path_of(&args.name);
        imported.task(&args.name, "promote", move |ctx| {
            let ds = found(ctx.dsl(), &path)?;
            ctx.dsl().promote(ctx.tx, &ds, &path)
        })?;
        Ok(Empty {})
    }

    pub(super) fn create_bookmarks(&self, args: &CreateBookmarksArgs) -> Result<Empty, Failure> {
        let Some(first) = Self::same_pool(args.bookmarks.iter().flat_map(|b| [&b.name, &b.source]))? else {
            return Ok(Empty {});
        };
        let imported = self.writable(&first)?;
        // One task each, since one that fails must not have changed anything.
        for mark in &args.bookmarks {
            let (source, name) = (path_of(&mark.source), path_of(&mark.name));
            imported.task(&mark.name, "bookmark", move |ctx| ctx.dsl().bookmark(ctx.tx, &source, &name))?;
        }
        Ok(Empty {})
    }

    pub(super) fn hold_snapshots(&self, args: &HoldArgs) -> Result<Empty, Failure> {
        let Some(first) = Self::same_pool(args.names.iter())? else { return Ok(Empty {}) };
        let imported = self.writable(&first)?;
        let (paths, tag) = (args.names.iter().map(|n| path_of(n)).collect::<Vec<_>>(), args.tag.clone());
        imported.task(&first, "hold", move |ctx| {
            let dsl = ctx.dsl();
            let snaps = paths.iter().map(|p| found(dsl, p)).collect::<Result<Vec<_>, _>>()?;
            snaps.iter().try_for_each(|s| dsl.check_hold(s, &tag))?;
            let time = ctx.spa.ops().now().0;
            snaps.iter().zip(&paths).try_for_each(|(s, path)| dsl.hold(ctx.tx, s, path, &tag, time))
        })?;
        Ok(Empty {})
    }

    pub(super) fn release_snapshots(&self, args: &HoldArgs) -> Result<Empty, Failure> {
        let Some(first) = Self::same_pool(args.names.iter())? else { return Ok(Empty {}) };
        let imported = self.writable(&first)?;
        let (paths, tag) = (args.names.iter().map(|n| path_of(n)).collect::<Vec<_>>(), args.tag.clone());
        imported.task(&first, "release", move |ctx| {
            let dsl = ctx.dsl();
            let mut snaps = Vec::new();
            for path in &paths {
                let snap = found(dsl, path)?;
                if !dsl.is_held_by(&snap, &tag)? {
                    return Err(zfs_spa::Error::not_found("releasing a snapshot"));
                }
                snaps.push((snap, super::change::short(path)));
            }
            snaps.iter().try_for_each(|(snap, short)| dsl.release(ctx.tx, snap, short, &tag))
        })?;
        Ok(Empty {})
    }

    pub(super) fn list_holds(&self, args: &ListHoldsArgs) -> Result<ListHoldsReply, Failure> {
        let mut holds = Vec::new();
        for name in &args.names {
            let (_, snap) = self.dataset(name)?;
            let of = snap.holds().map_err(|e| failure::engine(&e).about(name))?;
            let entry = |(tag, time)| HoldEntry { snapshot: name.clone(), tag, time: U64(time) };
            holds.extend(of.into_iter().map(entry));
        }
        Ok(ListHoldsReply { holds })
    }

    pub(super) fn snapshot_space(&self, args: &SnapshotSpaceArgs) -> Result<SnapshotSpaceReply, Failure> {
        let (imported, _) = self.dataset(&args.first)?;
        let (first, last) = (path_of(&args.first), path_of(&args.last));
        let bytes = imported.task(&args.first, "space of snapshots", move |ctx| {
            let dsl = ctx.dsl();
            dsl.space_of_snapshots(&found(dsl, &first)?, &found(dsl, &last)?)
        })?;
        Ok(SnapshotSpaceReply { bytes: U64(bytes) })
    }

    pub(super) fn log_history(&self, args: &LogHistoryArgs, uid: u32) -> Result<Empty, Failure> {
        let imported = self.writable(pool_of(&args.pool))?;
        let command = args.command.clone();
        // Not waited for: the pool may just have been suspended, and who reads the history has it synced.
        let noted = imported.writer()?.sync_task_later("history", move |ctx| ctx.log_command(&command, uid));
        noted.map_err(|e| failure::engine(&e).about(&args.pool))?;
        Ok(Empty {})
    }

    /// Checks what is set about space, and finds the refreservation of a volume that is to follow its size.
    pub(super) fn check_space(&self, imported: &Imported, name: &str, values: &mut Values) -> Result<(), Failure> {
        let of = |property: &str| imported.number_of(name, property);
        let old = of("volsize");
        let (block, copies) = (of("volblocksize").unwrap_or(VOLBLOCK), of("copies").unwrap_or(1));
        let mut new = None;
        for (property, value) in values.iter_mut() {
            let NewValue::Number(n) = value else { continue };
            match (property.as_str(), old) {
                ("volsize", Some(old)) => {
                    let unit = if block < 1024 { format!("{block}B") } else { format!("{}K", block >> 10) };
                    let text = match *n {
                        0 => Some("'volsize' cannot be zero".to_owned()),
                        n if n % block != 0 => {
                            Some(format!("'volsize' must be a multiple of volume block size ({unit})"))
                        }
                        _ => None,
                    };
                    if let Some(text) = text {
                        return Err(Failure::new(FailureCode::InvalidArgument, text).about(name));
                    }
                    // A volume that is promised all it may take stays so.
                    if of("refreservation") == Some(imported.reservation(old, block, copies)) {
                        new = Some(imported.reservation(*n, block, copies));
                    }
                }
                ("refreservation", Some(size)) if *n == AUTO => *n = imported.reservation(size, block, copies),
                _ => {}
            }
            imported.space_fits(name, property, *n)?;
        }
        if let Some(reserved) = new.filter(|_| !values.iter().any(|(p, _)| p == "refreservation")) {
            imported.space_fits(name, "refreservation", reserved)?;
            values.push(("refreservation".into(), NewValue::Number(reserved)));
        }
        Ok(())
    }

    pub(super) fn create_volume(&self, caller: &Caller, args: &CreateDatasetArgs) -> Result<Empty, Failure> {
        let imported = self.writable(&args.name)?;
        let wrong = |text: &str| Failure::new(FailureCode::InvalidArgument, text).about(&args.name);
        let number = |name: &str| args.properties.get(name).and_then(Raw::as_u64);
        let size = args.volume_size.ok_or_else(|| wrong("missing volume size"))?;
        let block = number("volblocksize").unwrap_or(VOLBLOCK);
        if size == 0 {
            return Err(wrong("volume size cannot be zero"));
        }
        if !block.is_power_of_two() || !(512..=TYPICAL).contains(&block) || size % block != 0 {
            return Err(wrong("volume size must be a multiple of volume block size"));
        }
        let mut values: Values = super::change::values_of(&args.properties);
        values.retain(|(name, _)| name != "volblocksize" && name != "volsize");
        for (name, value) in &mut values {
            if name == "refreservation" && *value == NewValue::Number(AUTO) {
                let copies = number("copies").unwrap_or(1);
                *value = NewValue::Number(imported.reservation(size, block, copies));
            }
        }
        let promised = values.iter().filter(|(name, _)| name.ends_with("reservation"));
        let promised = promised.map(|(_, value)| if let NewValue::Number(n) = value { *n } else { 0 });
        imported.check_room(&args.name, promised.max().unwrap_or(0))?;
        let path = path_of(&args.name);
        let limited = is_limited(caller);
        imported.task(&args.name, "create", move |ctx| {
            ctx.dsl().check_values(&values)?;
            check_limits(ctx, limited, &path)?;
            let mut init = |objset: &Arc<_>, tx: &_| zfs_zvol::create(objset, tx, size, block as u32);
            let new = NewObjset { kind: ObjsetType::Zvol, flags: 0, init: &mut init };
            let ds = ctx.dsl().create(ctx.tx, &path, new)?;
            set_all(ctx, &ds, &values)
        })?;
        Ok(Empty {})
    }
}

impl Imported {
    /// Refuses what needs more space than the parent of `name` has.
    fn check_room(&self, name: &str, bytes: u64) -> Result<(), Failure> {
        let parent = name.rsplit_once('/').map_or(name, |(above, _)| above);
        match self.number_of(parent, "available") {
            Some(available) if bytes > available => Err(Failure::new(FailureCode::NoSpace, "out of space").about(name)),
            _ => Ok(()),
        }
    }

    /// Refuses promises and limits of space that cannot be kept, and puts a number to those that follow the volume.
    fn space_fits(&self, name: &str, property: &str, value: u64) -> Result<(), Failure> {
        let number = |property: &str| self.number_of(name, property).unwrap_or(0);
        let small = "size is less than current used or reserved space";
        let large = "size is greater than available space";
        let wrong = |text: &str| Err(Failure::new(FailureCode::InvalidArgument, text).about(name));
        match property {
            "quota" if value != 0 && value < number("used").max(number("reservation")) => wrong(small),
            "refquota" if value != 0 && value < number("referenced").max(number("refreservation")) => wrong(small),
            "reservation" => {
                let used = number("used");
                let more = value.max(used).saturating_sub(number("reservation").max(used));
                let quota = number("quota");
                let fits = more <= number("available") && (quota == 0 || value <= quota || more == 0);
                if fits { Ok(()) } else { wrong(large) }
            }
            "refreservation" => {
                let more = value.saturating_sub(number("refreservation"));
                let quota = number("refquota");
                let fits = more <= number("available") && (quota == 0 || value <= quota || more == 0);
                if fits { Ok(()) } else { wrong(large) }
            }
            _ => Ok(()),
        }
    }

    /// A number that a dataset has.
    pub(super) fn number_of(&self, name: &str, property: &str) -> Option<u64> {
        let view = self.view();
        let ds = view.dsl().ok()?.dataset(name).ok()??;
        match view.property(&ds, property).ok()??.value {
            zfs_spa::dsl::PropValue::Number(n) => Some(n),
            zfs_spa::dsl::PropValue::Text(_) => None,
        }
    }

    /// Space a volume may come to take when all of it is written (`zvol_volsize_to_reservation`).
    pub(super) fn reservation(&self, size: u64, block: u64, copies: u64) -> u64 {
        let blocks = size / block.max(1);
        let widest =
            self.pool.zio().vdevs().root().children.iter().filter_map(|top| scaled(&top.config, blocks, block));
        let data = widest.max().unwrap_or_else(|| blocks.saturating_mul(block));
        let (mut left, mut meta) = (blocks, 7u64);
        while left > 1 {
            left = left.div_ceil(POINTERS);
            meta = meta.saturating_add(left);
        }
        let meta = meta.saturating_mul((copies + 1).min(3)).saturating_mul(INDIRECT);
        data.saturating_mul(copies).saturating_add(meta)
    }
}

/// Bytes, told as if in usual blocks, that `blocks` blocks take on a top-level device that pads them.
fn scaled(top: &VdevConfig, blocks: u64, block: u64) -> Option<u64> {
    let sector = 1u64 << top.ashift.min(16);
    let taken = |size: u64| match top.kind {
        VdevKind::Raidz { nparity } => {
            let data_disks = (top.children.len() as u64).saturating_sub(nparity).max(1);
            let sectors = size.div_ceil(sector);
            let all = sectors + nparity * sectors.div_ceil(data_disks);
            Some(all.next_multiple_of(nparity + 1) * sector)
        }
        VdevKind::Draid { nparity, ndata, .. } => {
            let data = ndata.max(1);
            Some(size.div_ceil(data * sector) * (data + nparity) * sector)
        }
        _ => None,
    };
    let (taken, usual) = (taken(block)?, taken(TYPICAL)?);
    let units = blocks.saturating_mul(taken) / (usual >> 9).max(1);
    Some(units.saturating_mul(TYPICAL >> 9))
}
