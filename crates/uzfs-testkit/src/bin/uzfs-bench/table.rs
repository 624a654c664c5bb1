//! The figures: printed as they come, and side by side at the end.

use crate::peers::Kind;

/// A measurement: name of the row, unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    name: &'static str,
    unit: &'static str,
}

/// Figures of all rounds. More is better in every row.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
    /// Row, peer, figure.
    figures: Vec<(usize, Kind, f64)>,
}

impl Table {
    /// Takes a figure down and prints it.
    pub fn note(&mut self, round: usize, peer: Kind, name: &'static str, unit: &'static str, figure: f64) {
        println!("round {round}  {:<9} {name:<28} {:>10} {unit}", peer.name(), shown(Some(figure)));
        let row = Row { name, unit };
        let at = self.rows.iter().position(|r| *r == row).unwrap_or_else(|| {
            self.rows.push(row);
            self.rows.len() - 1
        });
        self.figures.push((at, peer, figure));
    }

    fn best(&self, row: usize, peer: Kind) -> Option<f64> {
        let of_row = self.figures.iter().filter(|(r, p, _)| (*r, *p) == (row, peer));
        of_row.map(|(_, _, f)| *f).max_by(f64::total_cmp)
    }

    /// Prints the best figure of every row and peer, and how uzfs stands to the others.
    pub fn print(&self, rounds: usize) {
        let [theirs, ours, ceiling] = Kind::ALL;
        println!("\nBest of {rounds} round(s); more is better.");
        println!(
            "{:<28} {:>8} {:>10} {:>10} {:>8} {:>10} {:>8}",
            "", "", "zfs-fuse", "uzfs", "ratio", "memory", "ratio"
        );
        for (at, row) in self.rows.iter().enumerate() {
            let (their, our, top) = (self.best(at, theirs), self.best(at, ours), self.best(at, ceiling));
            println!(
                "{:<28} {:>8} {:>10} {:>10} {:>8} {:>10} {:>8}",
                row.name,
                row.unit,
                shown(their),
                shown(our),
                ratio(our, their),
                shown(top),
                ratio(our, top)
            );
        }
    }
}

fn shown(figure: Option<f64>) -> String {
    figure.map_or_else(|| "-".to_owned(), |f| if f < 100.0 { format!("{f:.2}") } else { format!("{f:.0}") })
}

fn ratio(ours: Option<f64>, other: Option<f64>) -> String {
    ours.zip(other).map_or_else(|| "-".to_owned(), |(a, b)| format!("{:.2}x", a / b))
}
