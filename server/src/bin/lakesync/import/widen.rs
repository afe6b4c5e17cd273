//! Values of a source in a column that is wider at the gateway by now.

use lakesync::calendar::DAY_MICROS;
use lakesync::name::ColumnName;
use lakesync::schema::ColumnType;
use lakesync::value::Value;
use lakesync_adapters::shown;

/// A column of the gateway that values go to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) name: ColumnName,
    pub(super) kind: ColumnType,
}

impl Target {
    /// The value as this column has it: its exact form in a wider type, or why it has none.
    pub(super) fn value(&self, value: Value) -> Result<Value, String> {
        if self.kind.fits(&value) {
            return Ok(value);
        }
        let no = |value: &Value| format!("a {} has no exact form as {}", value.kind(), self.kind);
        let wide = match (self.kind, &value) {
            (ColumnType::Double, Value::Int64(number)) => {
                let double = *number as f64;
                // The largest double that is no integer of 64 bits is rounded to the greatest one.
                let is_exact = double as i64 == *number && *number != i64::MAX;
                is_exact.then_some(Value::Double(double))
            }
            (ColumnType::Decimal { .. }, Value::Int64(number)) => {
                Some(Value::Decimal(number.to_string()))
            }
            (ColumnType::Timestamp, Value::Date(days)) => {
                i64::from(*days).checked_mul(DAY_MICROS).map(Value::Timestamp)
            }
            (ColumnType::String, value) => {
                shown::plain(value).map(|text| Value::String(text.into_owned()))
            }
            (ColumnType::Json, value) => {
                shown::json(value).map(|text| Value::Json(text.into_owned()))
            }
            _ => None,
        };
        wide.filter(|wide| self.kind.fits(wide)).ok_or_else(|| no(&value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_take_the_form_of_the_wider_type() {
        let text = |text: &str| Value::String(text.to_owned());
        let json = |text: &str| Value::Json(text.to_owned());
        let decimal = |text: &str| Value::Decimal(text.to_owned());
        let wide = ColumnType::Decimal { precision: 20, scale: 1 };
        for (kind, value, expected) in [
            (ColumnType::Int64, Value::Int64(7), Some(Value::Int64(7))),
            (ColumnType::Any, Value::Int64(7), Some(Value::Int64(7))),
            (ColumnType::Double, Value::Null, Some(Value::Null)),
            (ColumnType::Double, Value::Int64(-7), Some(Value::Double(-7.0))),
            (ColumnType::Double, Value::Int64((1 << 53) + 1), None),
            (ColumnType::Double, Value::Int64(i64::MAX), None),
            (ColumnType::Double, Value::Int64(i64::MIN), Some(Value::Double(-(2_f64.powi(63))))),
            (wide, Value::Int64(i64::MIN), Some(decimal("-9223372036854775808"))),
            (wide, decimal("1.5"), Some(decimal("1.5"))),
            (ColumnType::Timestamp, Value::Date(1), Some(Value::Timestamp(DAY_MICROS))),
            (ColumnType::Timestamp, Value::Date(i32::MAX), None),
            (ColumnType::String, Value::Bool(true), Some(text("true"))),
            (ColumnType::String, Value::Date(0), Some(text("1970-01-01"))),
            (ColumnType::String, Value::Bytes(vec![0, 255].into()), Some(text("00ff"))),
            (ColumnType::Json, Value::Int64(7), Some(json("7"))),
            (ColumnType::Json, text("a\"b"), Some(json("\"a\\\"b\""))),
            (ColumnType::Int64, text("7"), None),
        ] {
            let target = Target { name: "c".parse().expect("legal"), kind };
            let told = format!("{value:?} as {kind}");
            assert_eq!(target.value(value).ok(), expected, "{told}");
        }
    }
}
