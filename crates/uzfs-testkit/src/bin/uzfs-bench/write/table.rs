//! The figures, side by side, with ratios of the first of uzfs to each of the others.

use super::places::Kind;

/// Figures of all rounds. More is better in every row.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<(&'static str, &'static str)>,
    figures: Vec<(usize, Kind, f64)>,
}

impl Table {
    /// Takes a figure down and prints it.
    pub fn note(&mut self, round: usize, place: Kind, name: &'static str, unit: &'static str, figure: f64) {
        println!("round {round}  {:<12} {name:<26} {figure:>12.1} {unit}", place.name());
        let at = self.rows.iter().position(|r| *r == (name, unit)).unwrap_or_else(|| {
            self.rows.push((name, unit));
            self.rows.len() - 1
        });
        self.figures.push((at, place, figure));
    }

    fn best(&self, row: usize, place: Kind) -> Option<f64> {
        let all = self.figures.iter().filter(|(r, p, _)| (*r, *p) == (row, place));
        all.map(|(_, _, f)| *f).max_by(f64::total_cmp)
    }

    /// Prints the best figures, and how uzfs with lz4 stands to each of the others.
    pub fn print(&self, rounds: usize) {
        let places: Vec<Kind> = Kind::ALL.into_iter().filter(|k| self.figures.iter().any(|(_, p, _)| p == k)).collect();
        println!("\nBest of {rounds} round(s); more is better. Below each figure: uzfs-lz4 against it.");
        print!("{:<26} {:>8}", "", "");
        places.iter().for_each(|p| print!(" {:>12}", p.name()));
        println!();
        for (at, (name, unit)) in self.rows.iter().enumerate() {
            print!("{name:<26} {unit:>8}");
            places.iter().for_each(|p| print!(" {:>12}", self.best(at, *p).map_or("-".into(), |f| format!("{f:.1}"))));
            print!("\n{:<26} {:>8}", "", "");
            let ours = self.best(at, Kind::UzfsLz4);
            for place in &places {
                let ratio = ours.zip(self.best(at, *place)).map(|(o, t)| o / t.max(f64::MIN_POSITIVE));
                print!(" {:>12}", ratio.map_or("-".into(), |r| format!("{r:.2}x")));
            }
            println!();
        }
    }
}
