//! Crash enumeration: one recorded run, taken back to every boundary between two writes or flushes.
//!
//! What survives at a boundary: nothing that was not flushed, all of it, and several random subsets, torn at sectors
//! and out of order. Each is a pool that was never exported, which is opened, compared with the model, written to,
//! exported, and opened again.

use crate::inspect;
use crate::live::Live;
use crate::machine::{Layout, Machine};
use crate::model::{Mark, Model, Seen};
use crate::ops::{self, Mix, Op};
use crate::{Outcome, during};
use zfs_env::{SeededRng, Survival};
use zfs_spa::check::Verify;

/// A run to be recorded.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Which vdevs.
    pub layout: Layout,
    /// Decides everything.
    pub seed: u64,
    /// Operations.
    pub ops: usize,
    /// Which.
    pub mix: Mix,
    /// How many boundaries are visited; the others are left out evenly. 0 for all.
    pub boundaries: u64,
    /// Random survivors at each boundary, besides nothing and everything.
    pub survivors: u64,
}

/// What an enumeration did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Done {
    /// Boundaries of the run.
    pub events: u64,
    /// Crashes checked.
    pub crashes: u64,
}

/// Records a run and checks crashes of it.
///
/// # Errors
/// The first that breaks a promise, with what is needed to see it again.
pub fn enumerate(plan: &Plan) -> Outcome<Done> {
    let machine = Machine::new(plan.layout, plan.seed)?;
    let first = machine.sim.record();
    let (model, story) = record(plan, &machine)?;
    let last = machine.sim.events();
    let count = last - first;
    let step = if plan.boundaries == 0 { 1 } else { count.div_ceil(plan.boundaries).max(1) };
    let mut done = Done { events: count, crashes: 0 };
    // Each seed starts elsewhere, so that several of them visit what one leaves out.
    let mut event = first + plan.seed % step;
    while event <= last {
        let fates = [(Survival::Nothing, 0), (Survival::Everything, 0)];
        let fates = fates.into_iter().chain((0..plan.survivors).map(|n| (Survival::Random, n + 1)));
        // Where boundaries are sampled, so are survivors: one of the certain ones, and the random ones.
        let skip = if step == 1 { None } else { Some((event / step) % 2) };
        for (i, (survival, n)) in fates.enumerate() {
            if i < 2 && skip == Some(i as u64) {
                continue;
            }
            machine.sim.rewind(event);
            machine.sim.restart(survival, plan.seed ^ (event << 8) ^ n);
            done.crashes += 1;
            check(&machine, &model, event).map_err(|e| {
                format!(
                    "{plan:?}\ncrash at boundary {} of {count}, {survival:?} {n}: {e}\noperations: {}",
                    event - first,
                    tell(&story)
                )
            })?;
        }
        event += step;
    }
    Ok(done)
}

fn tell(story: &[Op]) -> String {
    story.iter().enumerate().map(|(i, op)| format!("\n  {i}: {op:?}")).collect()
}

/// Does the operations of a plan; the pool is exported at the end.
fn record(plan: &Plan, machine: &Machine) -> Outcome<(Model, Vec<Op>)> {
    let (rng, mut model) = (SeededRng::new(plan.seed), Model::new());
    let mut story = Vec::new();
    let mut live = Live::open(machine)?;
    for _ in 0..plan.ops {
        let op = ops::invent(&rng, model.now(), &plan.mix);
        story.push(op.clone());
        live.run(machine, &mut model, &op).map_err(|e| format!("{plan:?}: {e}{}", tell(&story)))?;
    }
    live.close().map_err(during(format!("{plan:?}")))?;
    let all = model.ops();
    model.marks.push(Mark { events: machine.sim.events(), begun: all, synced: all });
    Ok((model, story))
}

/// Everything that must hold after one crash.
fn check(machine: &Machine, model: &Model, event: u64) -> Outcome<()> {
    {
        let pool = machine.import(false)?;
        inspect::blocks(&pool, Verify::Everything).map_err(during("after the crash"))?;
        inspect::sums(&pool).map_err(during("after the crash"))?;
    }
    let window = model.window(event);
    let seen = reopen(machine)?;
    model
        .explain(window, &seen)
        .map_err(|e| format!("operations {} to {} may be seen: {e}", window.least, window.most))?;
    let pool = machine.import(false).map_err(during("the second import"))?;
    inspect::blocks(&pool, Verify::Everything).map_err(during("after the second import"))?;
    inspect::sums(&pool).map_err(during("after the second import"))?;
    let again = inspect::datasets(&pool).map_err(during("the second import"))?;
    if again != seen {
        return Err("the second import shows something else".into());
    }
    Ok(())
}

/// Opens a pool for writing, reads all of it, and exports it.
///
/// # Errors
/// When anything of that fails, or a file system has files without names.
pub fn reopen(machine: &Machine) -> Outcome<Seen> {
    let live = Live::open(machine)?;
    let mut seen = Seen::default();
    for (name, vfs) in live.mounts() {
        let tree = inspect::tree(vfs).map_err(during(format!("'{name}'")))?;
        let zfs = vfs.dataset();
        inspect::orphans(zfs.objset(), zfs.root(), &tree).map_err(during(format!("'{name}'")))?;
        seen.heads.insert(name.clone(), tree);
    }
    let view = live.spa.view().map_err(during("looking at the pool"))?;
    seen.snaps = inspect::datasets(&view)?.snaps;
    drop(view);
    live.close()?;
    Ok(seen)
}
