//! Values in columns, as people see them.

use lakesync::adapter::{JsonCapacity, Reserved};
use lakesync::testing;
use proptest::prelude::*;

use super::*;

const NARROW: Dialect = Dialect {
    capacity: Capacity {
        nul: false,
        nan: false,
        timestamps: (-210_866_803_200_000_000, i64::MAX),
        dates: (-2_440_588, 2_145_042_905),
        json: Some(JsonCapacity { nul: false, depth_max: 9 }),
        columns_max: 9,
        reserved: Reserved::NONE,
    },
    truths: ["0", "1"],
    timestamp,
};
const CENTS: ColumnType = ColumnType::Decimal { precision: 30, scale: 2 };

#[test]
fn values_look_as_their_column_has_them() {
    use ColumnType::{Any, Bool, Date, Double, Int64, Json, String as Text, Timestamp, Uuid};
    let text = |text: &str| Value::String(text.to_owned());
    let decimal = |text: &str| Value::Decimal(text.to_owned());
    let nan = Value::Double(f64::NAN);
    for (kind, value, shown) in [
        (Bool, Value::Bool(true), Some("1")),
        (Any, Value::Bool(true), Some("true")),
        (Json, Value::Bool(false), Some("false")),
        (Int64, Value::Int64(i64::MIN), Some("-9223372036854775808")),
        (Double, Value::Int64(i64::MAX), Some("9.223372036854776e+18")),
        (CENTS, Value::Int64(-7), Some("-7")),
        (CENTS, decimal("-12.30"), Some("-12.30")),
        (Json, decimal("-0012.30"), Some("-12.30")),
        (Json, decimal("-00.5"), Some("-0.5")),
        (Json, decimal("000"), Some("0")),
        (Double, Value::Double(-0.0), Some("-0")),
        (Double, Value::Double(5e-324), Some("5e-324")),
        (Double, Value::Double(1e15), Some("1e+15")),
        (Double, Value::Double(1e14), Some("100000000000000")),
        (Double, Value::Double(0.000_01), Some("1e-05")),
        (Double, Value::Double(0.000_1), Some("0.0001")),
        (Double, nan.clone(), None),
        (Any, nan.clone(), Some("NaN")),
        (Json, nan, Some("\"NaN\"")),
        (Json, Value::Double(f64::NEG_INFINITY), Some("\"-Infinity\"")),
        (Text, text("a\"b"), Some("a\"b")),
        (Json, text("a\"b"), Some("\"a\\\"b\"")),
        (Text, text("a\0b"), None),
        (Text, Value::Json("[1]".into()), Some("[1]")),
        (Json, Value::Json("[1]".into()), Some("[1]")),
        (Json, Value::Json("1e400".into()), None),
        (
            Json,
            Value::Json("{\"1e9999\\\"\":[-1.5e-300 ]}".into()),
            Some("{\"1e9999\\\"\":[-1.5e-300 ]}"),
        ),
        (Json, Value::Json("[\"\",1E-9999,2]".into()), None),
        (Json, Value::Json("0e99999999999".into()), None),
        (Json, Value::Json(format!("0.{}", "0".repeat(9_999))), None),
        (Any, Value::Bytes(b"\0\xff"[..].into()), Some("00ff")),
        (Json, Value::Bytes(b"\0\xff"[..].into()), Some("\"00ff\"")),
        (Timestamp, Value::Timestamp(-1), Some("1969-12-31T23:59:59.999999Z")),
        (Timestamp, Value::Date(-1), Some("1969-12-31T00:00:00.000000Z")),
        (Timestamp, Value::Date(i32::MAX), None),
        (Timestamp, Value::Timestamp(i64::MIN), None),
        (Json, Value::Timestamp(0), Some("\"1970-01-01T00:00:00.000000Z\"")),
        (Date, Value::Date(-719_162), Some("0001-01-01")),
        (Date, Value::Date(-719_163), Some("0001-12-31 BC")),
        (Date, Value::Date(-2_440_588), Some("4714-11-24 BC")),
        (Date, Value::Date(2_145_042_905), Some("5874897-12-31")),
        (Date, Value::Date(11_016), Some("2000-02-29")),
        (Uuid, Value::Uuid([7; 16]), Some("07070707-0707-0707-0707-070707070707")),
        (Bool, Value::Null, None),
    ] {
        let text = match render(&NARROW, kind, &value) {
            Some(Rendered::Text(text)) => Some(text.into_owned()),
            other => {
                assert_eq!(other, None, "{value:?} in {kind}");
                None
            }
        };
        assert_eq!(text.as_deref(), shown, "{value:?} in {kind}");
    }
    let bytes = Value::Bytes(b"\0\xff"[..].into());
    let rendered = render(&NARROW, ColumnType::Bytes, &bytes);
    assert_eq!(rendered, Some(Rendered::Bytes(b"\0\xff")));
}

proptest! {
    #[test]
    fn any_value_looks_like_something_in_any_column(value in testing::value(), kind in 0..11_usize) {
        use ColumnType::{Any, Bool, Bytes, Date, Double, Int64, Json, String, Timestamp, Uuid};
        let kind = [Any, Bool, Bytes, Date, Double, Int64, Json, String, Timestamp, Uuid, CENTS][kind];
        let shown = render(&NARROW, kind, &value);
        prop_assert!(value != Value::Null || shown.is_none());
        if let Some(Rendered::Text(text)) = shown {
            prop_assert!(kind != Json || serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }
}
