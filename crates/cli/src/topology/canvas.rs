//! A grid of characters on which lines join by themselves.
//!
//! A line leaves in each cell the directions in which it goes on; only rendering picks the
//! character. So two lines that meet make the right corner, tee or crossing without anybody
//! deciding which, and the ASCII form needs no second set of rules.

use crate::ui::Style;

const UP: u8 = 1;
const DOWN: u8 = 2;
const LEFT: u8 = 4;
const RIGHT: u8 = 8;

#[derive(Clone, Copy, Debug)]
struct Cell {
    /// Directions in which lines go on.
    lines: u8,
    /// Corners here are round: a frame or a cable, not a bus.
    round: bool,
    text: Option<char>,
    style: Style,
}

const BLANK: Cell = Cell {
    lines: 0,
    round: false,
    text: None,
    style: Style::Plain,
};

/// A grid that grows as it is drawn on. Rows and columns count from 0.
#[derive(Debug, Default)]
pub(super) struct Canvas {
    rows: Vec<Vec<Cell>>,
}

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pen {
    /// Are corners round?
    pub(super) round: bool,
    /// Colour.
    pub(super) style: Style,
}

impl Canvas {
    /// Writes text over whatever is there.
    pub(super) fn text(&mut self, row: usize, column: usize, text: &str, style: Style) {
        for (offset, char) in text.chars().enumerate() {
            let cell = self.cell(row, column + offset);
            cell.text = Some(char);
            cell.style = style;
        }
    }

    /// Draws a line in a row between two columns, both included.
    pub(super) fn across(&mut self, row: usize, from: usize, to: usize, pen: Pen) {
        let (from, to) = (from.min(to), from.max(to));
        for column in from..=to {
            let mut lines = 0;
            if column > from {
                lines |= LEFT;
            }
            if column < to {
                lines |= RIGHT;
            }
            self.ink(row, column, lines, pen);
        }
    }

    /// Draws a line in a column between two rows, both included.
    pub(super) fn down(&mut self, column: usize, from: usize, to: usize, pen: Pen) {
        let (from, to) = (from.min(to), from.max(to));
        for row in from..=to {
            let mut lines = 0;
            if row > from {
                lines |= UP;
            }
            if row < to {
                lines |= DOWN;
            }
            self.ink(row, column, lines, pen);
        }
    }

    /// Draws a box with its corners at two cells.
    pub(super) fn frame(&mut self, top: (usize, usize), bottom: (usize, usize), pen: Pen) {
        self.across(top.0, top.1, bottom.1, pen);
        self.across(bottom.0, top.1, bottom.1, pen);
        self.down(top.1, top.0, bottom.0, pen);
        self.down(bottom.1, top.0, bottom.0, pen);
    }

    /// Writes the grid as lines without spaces at their ends.
    pub(super) fn render(&self, unicode: bool) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            let mut style = Style::Plain;
            for cell in row {
                if cell.style != style {
                    if style != Style::Plain {
                        line.push_str("\x1b[0m");
                    }
                    line.push_str(cell.style.on());
                    style = cell.style;
                }
                line.push(cell.glyph(unicode));
            }
            if style != Style::Plain {
                line.push_str("\x1b[0m");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn ink(&mut self, row: usize, column: usize, lines: u8, pen: Pen) {
        let cell = self.cell(row, column);
        cell.round |= pen.round;
        // A crossing keeps the look of what was there first.
        if cell.lines == 0 {
            cell.style = pen.style;
        }
        cell.lines |= lines;
    }

    fn cell(&mut self, row: usize, column: usize) -> &mut Cell {
        if self.rows.len() <= row {
            self.rows.resize(row + 1, Vec::new());
        }
        let cells = &mut self.rows[row];
        if cells.len() <= column {
            cells.resize(column + 1, BLANK);
        }
        &mut cells[column]
    }
}

impl Cell {
    fn glyph(self, unicode: bool) -> char {
        if let Some(char) = self.text {
            return match (unicode, char) {
                (false, '·') => '/',
                (false, char) if !char.is_ascii() => '?',
                (_, char) => char,
            };
        }
        let vertical = UP | DOWN;
        let horizontal = LEFT | RIGHT;
        if !unicode {
            return match self.lines {
                0 => ' ',
                lines if lines & vertical == 0 => '-',
                lines if lines & horizontal == 0 => '|',
                _ => '+',
            };
        }
        match (self.lines, self.round) {
            (0, _) => ' ',
            (LEFT | RIGHT, _) => '─',
            (UP | DOWN, _) => '│',
            (lines, _) if lines == horizontal => '─',
            (lines, _) if lines == vertical => '│',
            (lines, round) if lines == DOWN | RIGHT => {
                if round {
                    '╭'
                } else {
                    '┌'
                }
            }
            (lines, round) if lines == DOWN | LEFT => {
                if round {
                    '╮'
                } else {
                    '┐'
                }
            }
            (lines, round) if lines == UP | RIGHT => {
                if round {
                    '╰'
                } else {
                    '└'
                }
            }
            (lines, round) if lines == UP | LEFT => {
                if round {
                    '╯'
                } else {
                    '┘'
                }
            }
            (lines, _) if lines == vertical | RIGHT => '├',
            (lines, _) if lines == vertical | LEFT => '┤',
            (lines, _) if lines == horizontal | DOWN => '┬',
            (lines, _) if lines == horizontal | UP => '┴',
            _ => '┼',
        }
    }
}
