//! Figures with one shared look, as SVG.
//!
//! All positions are computed from integers, so that the same table gives the same figure on every
//! machine.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Width and height of a panel, in pixels.
const PANEL: (u32, u32) = (400, 300);
/// Height of the title, and of a row of the legend below the panels, in pixels.
const MARGIN: u32 = 36;
/// Distance of the legend from the left edge, in pixels.
const LEGEND_LEFT: i32 = 16;
/// Width of an entry of the legend without its text, in pixels.
const LEGEND_MARK: i32 = 54;
/// Width of a character of the legend, in pixels.
const LEGEND_CHARACTER: i32 = 8;

/// The colours of the lines: the palette of Okabe and Ito, which colour-blind readers can tell
/// apart, and grey.
pub mod colour {
    use plotters::style::RGBColor;

    /// Black.
    pub const BLACK: RGBColor = RGBColor(0, 0, 0);
    /// Brown. Not in the palette.
    pub const BROWN: RGBColor = RGBColor(120, 80, 40);
    /// Blue.
    pub const BLUE: RGBColor = RGBColor(0, 114, 178);
    /// Grey.
    pub const GREY: RGBColor = RGBColor(140, 140, 140);
    /// Green.
    pub const GREEN: RGBColor = RGBColor(0, 158, 115);
    /// Light blue.
    pub const SKY: RGBColor = RGBColor(86, 180, 233);
    /// Orange.
    pub const ORANGE: RGBColor = RGBColor(230, 159, 0);
    /// Pink. Not in the palette.
    pub const PINK: RGBColor = RGBColor(255, 150, 200);
    /// Purple.
    pub const PURPLE: RGBColor = RGBColor(204, 121, 167);
    /// Red.
    pub const RED: RGBColor = RGBColor(213, 94, 0);
    /// Yellow.
    pub const YELLOW: RGBColor = RGBColor(240, 228, 66);
}

/// A figure of one panel or more, which share a legend.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The title.
    pub title: &'static str,
    /// The panels. All have the same series, in the same order.
    pub panels: Vec<Panel>,
}

/// A panel with lines.
#[derive(Clone, Debug)]
pub struct Panel {
    /// The title.
    pub title: String,
    /// The unit of the horizontal axis.
    pub x_label: &'static str,
    /// The texts at the ticks of the horizontal axis, one for each value of a series.
    pub x_ticks: Vec<String>,
    /// The vertical axis.
    pub y: Scale,
    /// The lines.
    pub series: Vec<Series>,
}

/// A vertical axis that begins at 0.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// The unit.
    pub label: &'static str,
    /// The largest value. Larger values are drawn there.
    pub last: i64,
    /// The distance of two ticks.
    pub step: i64,
    /// The text at the largest value, in place of its number.
    pub last_text: Option<&'static str>,
}

/// A line.
#[derive(Clone, Debug)]
pub struct Series {
    /// The name in the legend.
    pub name: &'static str,
    /// The colour.
    pub colour: RGBColor,
    /// One value for each tick of the horizontal axis. `None`: there is no value.
    pub values: Vec<Option<i64>>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type DrawResult<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

impl Figure {
    /// Returns the figure as SVG.
    ///
    /// # Panics
    ///
    /// Does not panic: a figure in memory can always be written.
    pub fn svg(&self) -> String {
        let mut svg = String::new();
        self.draw(&mut svg).expect("a figure in memory can always be written");
        svg
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let columns = self.panels.len().clamp(1, 2);
        let rows = self.panels.len().div_ceil(columns);
        let (width, height) = (PANEL.0 * columns as u32, PANEL.1 * rows as u32);
        let legend = self.legend(width);
        let legend_rows = legend.last().map_or(1, |&(_, row)| row + 1);
        let size = (width, height + (1 + legend_rows) * MARGIN);
        let root = SVGBackend::with_string(svg, size).into_drawing_area();
        root.fill(&WHITE).map_err(text)?;
        let (title, rest) = root.split_vertically(MARGIN);
        let (panels, below) = rest.split_vertically(height);
        let middle = Pos::new(HPos::Center, VPos::Center);
        let style = ("sans-serif", 18).into_text_style(&title).pos(middle);
        title
            .draw_text(self.title, &style, (width.cast_signed() / 2, MARGIN.cast_signed() / 2))
            .map_err(text)?;
        for (panel, area) in self.panels.iter().zip(panels.split_evenly((rows, columns))) {
            panel.draw(&area).map_err(text)?;
        }
        self.draw_legend(&below, &legend).map_err(text)?;
        root.present().map_err(text)?;
        Ok(())
    }

    /// Returns the position of each entry of the legend in its row, in pixels, and the row.
    fn legend(&self, width: u32) -> Vec<(i32, u32)> {
        let (mut x, mut row) = (LEGEND_LEFT, 0);
        let entry = |series: &Series| {
            let entry = LEGEND_MARK + series.name.chars().map(|_| LEGEND_CHARACTER).sum::<i32>();
            if x > LEGEND_LEFT && x + entry > width.cast_signed() {
                (x, row) = (LEGEND_LEFT, row + 1);
            }
            let position = (x, row);
            x += entry;
            position
        };
        self.series().iter().map(entry).collect()
    }

    fn draw_legend<'a>(&self, area: &Area<'a>, positions: &[(i32, u32)]) -> DrawResult<'a> {
        for (Series { name, colour, .. }, &(x, row)) in self.series().iter().zip(positions) {
            let y = (row * MARGIN + MARGIN / 2).cast_signed();
            area.draw(&PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(2)))?;
            area.draw(&Circle::new((x + 12, y), 3, colour.filled()))?;
            let style = ("sans-serif", 13).into_text_style(area).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw_text(name, &style, (x + 30, y))?;
        }
        Ok(())
    }

    fn series(&self) -> &[Series] {
        self.panels.first().map_or(&[], |panel| &panel.series)
    }
}

impl Panel {
    fn draw<'a>(&self, area: &Area<'a>) -> DrawResult<'a> {
        /// The distance of two ticks of the horizontal axis. It leaves room beside the first tick.
        const TICK: i64 = 10;
        let ticks: Vec<_> = (0..).map(|tick| tick * TICK).take(self.x_ticks.len()).collect();
        let end = ticks.last().map_or(0, |last| last + TICK / 2);
        let tick_text = |at: &i64| {
            let tick = ticks.iter().position(|tick| tick == at);
            tick.map_or_else(String::new, |tick| self.x_ticks[tick].clone())
        };
        let x = (-TICK / 2..end).with_key_points(ticks.clone());
        let Scale { label, last, step, last_text } = self.y;
        let y = (0..last).with_key_points((0..=last / step).map(|tick| tick * step).collect());
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 15))
            .margin(8)
            .margin_right(16)
            .x_label_area_size(40)
            .y_label_area_size(52)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .x_desc(self.x_label)
            .y_desc(label)
            .x_label_formatter(&tick_text)
            .y_label_formatter(&|at| match last_text {
                Some(text) if *at == last => text.to_owned(),
                _ => at.to_string(),
            })
            .draw()?;
        for Series { values, colour, .. } in &self.series {
            let values = values.iter().map(|value| value.map(|value| value.clamp(0, last)));
            let points: Vec<_> =
                ticks.iter().zip(values).filter_map(|(&tick, value)| Some((tick, value?))).collect();
            chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
            chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
        }
        Ok(())
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure() -> Figure {
        let series =
            |name, last| Series { name, colour: colour::RED, values: vec![Some(0), None, Some(last)] };
        let panel = |title: &str| Panel {
            title: title.to_owned(),
            x_label: "processes",
            x_ticks: ["1", "10", "100"].map(str::to_owned).to_vec(),
            y: Scale { label: "seconds", last: 100, step: 50, last_text: Some("never") },
            series: vec![series("both", 40), series("retry", 1_000)],
        };
        Figure { title: "A figure", panels: vec![panel("first"), panel("second"), panel("third")] }
    }

    #[test]
    fn figure_is_the_same_svg_each_time() {
        assert_eq!(figure().svg(), figure().svg());
    }

    #[test]
    fn legend_continues_in_the_next_row_if_it_is_wider_than_the_figure() {
        let names = ["no_budget", "a_name_of_24_characters", "a_name_of_24_characters", "both", "none"];
        let mut figure = figure();
        figure.panels[0].series =
            names.map(|name| Series { name, colour: colour::RED, values: Vec::new() }).to_vec();
        let entry = |characters: i32| LEGEND_MARK + characters * LEGEND_CHARACTER;
        let second = LEGEND_LEFT + entry(23);
        let expected = [(16, 0), (16 + entry(9), 0), (16, 1), (second, 1), (second + entry(4), 1)];
        assert_eq!(figure.legend(500), expected);
    }

    #[test]
    fn figure_has_titles_ticks_and_legend() {
        let svg = figure().svg();
        for text in ["A figure", "first", "third", "processes", "seconds", "100", "never", "both", "retry"] {
            assert!(svg.lines().any(|line| line == text), "{text}");
        }
        // Two points of each line in each panel, and one in the legend.
        assert_eq!(svg.matches("<circle").count(), 2 * (2 * 3 + 1));
    }
}
