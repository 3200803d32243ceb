//! Tables of results, and their CSV files.

use std::fmt;

/// A value of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A name without a comma.
    Name(&'static str),
    /// A number.
    Number(i64),
}

impl Value {
    /// Returns the number.
    ///
    /// # Panics
    ///
    /// Panics if the value is a name.
    pub fn number(self) -> i64 {
        match self {
            Self::Number(number) => number,
            Self::Name(name) => panic!("`{name}` is not a number"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// Names of columns with the values that select rows.
pub type Labels<'a> = &'a [(&'a str, Value)];

/// A table: one row for each case and seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The names of the columns.
    pub columns: Vec<&'static str>,
    /// The rows, with one value for each column.
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// Returns the table as CSV, with a line of names.
    pub fn csv(&self) -> String {
        let names = self.columns.join(",");
        let line = |row: &Vec<Value>| row.iter().map(Value::to_string).collect::<Vec<_>>().join(",");
        [names].into_iter().chain(self.rows.iter().map(line)).map(|line| line + "\n").collect()
    }

    /// Returns the number of a column.
    ///
    /// # Panics
    ///
    /// Panics if the table has no column of this name.
    pub fn column(&self, name: &str) -> usize {
        let found = self.columns.iter().position(|column| *column == name);
        found.unwrap_or_else(|| panic!("the table has no column `{name}`"))
    }

    /// Returns the values of a column in the rows with these labels, sorted.
    ///
    /// # Panics
    ///
    /// Panics if the table has no column of one of the names.
    pub fn numbers(&self, column: &str, labels: Labels<'_>) -> Vec<i64> {
        let column = self.column(column);
        let labels: Vec<_> = labels.iter().map(|&(name, value)| (self.column(name), value)).collect();
        let rows = self.rows.iter().filter(|row| labels.iter().all(|&(at, value)| row[at] == value));
        let mut numbers: Vec<_> = rows.map(|row| row[column].number()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Returns the median of a column over the rows with these labels: the middle value, or the
    /// lower one of the two in the middle. `None`: there is no such row.
    ///
    /// # Panics
    ///
    /// Panics if the table has no column of one of the names.
    pub fn median(&self, column: &str, labels: Labels<'_>) -> Option<i64> {
        middle(&self.numbers(column, labels))
    }

    /// Returns the median of a column in which a negative number means "never". Such a number
    /// counts as `never`.
    ///
    /// # Panics
    ///
    /// Panics if the table has no column of one of the names.
    pub fn median_or(&self, column: &str, never: i64, labels: Labels<'_>) -> Option<i64> {
        let mut numbers = self.numbers(column, labels);
        numbers.iter_mut().filter(|number| **number < 0).for_each(|number| *number = never);
        numbers.sort_unstable();
        middle(&numbers)
    }
}

fn middle(sorted: &[i64]) -> Option<i64> {
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_written_as_csv_and_searched_by_labels() {
        let row =
            |name, number, result| vec![Value::Name(name), Value::Number(number), Value::Number(result)];
        let rows = vec![row("a", 1, 30), row("a", 2, -1), row("a", 3, 20), row("b", 1, 7), row("a", 4, 50)];
        let table = Table { columns: vec!["guard", "seed", "back"], rows };
        assert_eq!(table.csv(), "guard,seed,back\na,1,30\na,2,-1\na,3,20\nb,1,7\na,4,50\n");
        let median = |labels: &[(&str, Value)]| table.median("back", labels);
        assert_eq!(median(&[("guard", Value::Name("a"))]), Some(20));
        assert_eq!(table.median_or("back", 99, &[("guard", Value::Name("a"))]), Some(30));
        assert_eq!(median(&[("guard", Value::Name("a")), ("seed", Value::Number(4))]), Some(50));
        assert_eq!(median(&[("seed", Value::Number(9))]), None);
    }
}
