//! Medians, percentiles, budgets, and how they are printed.

use std::fmt::Write as _;

use crate::progress;

/// The middle one; NaN of nothing.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// The smallest value that `percent` of all values do not exceed (nearest rank); NaN of nothing.
#[must_use]
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// "median (smallest to largest)".
#[must_use]
pub fn spread(values: &[f64], digits: usize) -> String {
    format!(
        "{:.digits$} ({:.digits$} to {:.digits$})",
        median(values),
        percentile(values, 0.0),
        percentile(values, 100.0)
    )
}

/// Prints `rows` in columns as wide as they need to be; the first row is the header.
pub fn print(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::from("|");
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, " {cell:width$} |");
        }
        println!("{line}");
        if number == 0 {
            println!("|{}", widths.iter().map(|w| "-".repeat(w + 2) + "|").collect::<String>());
        }
    }
}

/// Prints a figure beside its budget from the design, with the verdict. Nothing fails by it: machines differ.
pub fn budget(what: &str, value: f64, limit: f64, unit: &str) {
    let verdict = if value <= limit { "ok" } else { "OVER" };
    progress::say(format_args!("budget: {what}: {value:.3} {unit}, at most {limit} {unit}: {verdict}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&values, 50.0), 100.0);
        assert_eq!(percentile(&values, 99.0), 198.0);
        assert_eq!(percentile(&values, 100.0), 200.0);
        assert_eq!(percentile(&values, 0.0), 1.0);
        assert_eq!(median(&[3.0]), 3.0);
        assert!(median(&[]).is_nan());
    }
}
