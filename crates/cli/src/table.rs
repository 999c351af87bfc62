//! Aligned columns for people, one object a line, never wrapped.
//!
//! No borders and no wrapping, so that `grep`, `awk` and `cut` work on what people see; for
//! programs there is `-o json`.

/// Rows of text under a head, aligned to the left.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

/// What stands in a cell that has nothing to show: not reported, or not there.
pub(crate) const NOTHING: &str = "-";

impl Table {
    /// Begins a table with the names of its columns.
    #[must_use]
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self {
            rows: vec![head.iter().map(|&name| name.to_owned()).collect()],
        }
    }

    /// Adds names of columns to the head.
    #[must_use]
    pub(crate) fn with<const N: usize>(mut self, more: [&str; N]) -> Self {
        if let Some(head) = self.rows.first_mut() {
            head.extend(more.iter().map(|&name| name.to_owned()));
        }
        self
    }

    /// Adds a row; a cell left empty stays empty.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Has the table no rows below its head?
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// Writes the table, one line a row, two spaces between columns, no space at the end.
    #[must_use]
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0; columns];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["NAME", "N"]).with(["MORE"]);
        table.row(vec!["├─ é".to_owned(), "1".to_owned(), String::new()]);
        table.row(vec![
            "longer name".to_owned(),
            String::new(),
            "x".to_owned(),
        ]);
        assert_eq!(
            table.render(),
            "NAME         N  MORE\n├─ é         1\nlonger name     x\n"
        );
    }
}
