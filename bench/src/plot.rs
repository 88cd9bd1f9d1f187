//! A bar plot as SVG.

use std::fmt::Write as _;

use crate::report::Spread;

const NAMES: f64 = 280.0;
const BARS: f64 = 420.0;
const VALUES: f64 = 60.0;
const ROW: f64 = 36.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 30.0;
const THICK: f64 = 18.0;

/// A row.
pub(crate) struct Bar<'a> {
    /// Plain text without `<` and `&`.
    pub(crate) name: &'a str,
    pub(crate) spread: Spread,
}

/// Bars to the medians, and a line over each from the smallest to the largest value. The axis begins at 0.
pub(crate) fn bars(title: &str, rows: &[Bar<'_>]) -> String {
    let most = rows.iter().map(|row| row.spread.max).fold(1.0, f64::max);
    let tenths = (most * 10.0).ceil() as u32;
    let x = |value: f64| NAMES + value / (f64::from(tenths) / 10.0) * BARS;
    let (width, height) = (NAMES + BARS + VALUES, TOP + ROW * rows.len() as f64 + BOTTOM);
    let end = height - BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>{title}</title>\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"24\" font-weight=\"bold\">{title}</text>\n"
    );
    // A line every fifth of the floor; ten at most.
    let step = if tenths <= 20 { 2 } else { tenths.div_ceil(10) };
    for tenth in (0..=tenths).step_by(step as usize) {
        let value = f64::from(tenth) / 10.0;
        let (x, label) = (x(value), end + 18.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{end}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{label}\" text-anchor=\"middle\" fill=\"#555\">{value:.1}</text>"
        );
    }
    for (number, Bar { name, spread }) in rows.iter().enumerate() {
        let top = TOP + ROW * number as f64 + (ROW - THICK) / 2.0;
        let (middle, text) = (top + THICK / 2.0, top + THICK / 2.0 + 4.5);
        let (names_end, wide) = (NAMES - 10.0, x(spread.median) - NAMES);
        let (low, high, value) = (x(spread.min), x(spread.max), x(spread.max.max(spread.median)) + 8.0);
        let _ = writeln!(
            svg,
            "<text x=\"{names_end}\" y=\"{text}\" text-anchor=\"end\">{name}</text>\
             <rect x=\"{NAMES}\" y=\"{top}\" width=\"{wide:.1}\" height=\"{THICK}\" fill=\"#4a7ab5\"/>\
             <line x1=\"{low:.1}\" y1=\"{middle}\" x2=\"{high:.1}\" y2=\"{middle}\" stroke=\"#111\" stroke-width=\"2\"/>\
             <text x=\"{value:.1}\" y=\"{text}\">{:.2}</text>",
            spread.median
        );
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_median() {
        let spread = Spread { min: 0.25, median: 0.5, max: 0.75 };
        let svg = bars("title", &[Bar { name: "half", spread }]);
        // The axis ends at 1.0, which is BARS wide.
        assert!(svg.contains("width=\"210.0\""), "{svg}");
        assert!(svg.contains("x1=\"385.0\"") && svg.contains("x2=\"595.0\""), "{svg}");
        assert!(svg.contains(">half</text>") && svg.contains(">0.50</text>"), "{svg}");
    }

    #[test]
    fn the_axis_grows_with_the_values() {
        let spread = Spread { min: 1.0, median: 4.0, max: 5.0 };
        let svg = bars("title", &[Bar { name: "five", spread }]);
        assert!(svg.contains("width=\"336.0\"") && svg.contains(">5.0</text>"), "{svg}");
    }
}
