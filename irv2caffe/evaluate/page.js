"use strict";
// Sorts the table of classes by the column whose heading is clicked; a second click reverses it.
const table = document.getElementById("classes");
const body = table.tBodies[0];
let sorted = { column: 0, up: true };
for (const heading of table.tHead.rows[0].cells) {
  heading.addEventListener("click", () => {
    const column = heading.cellIndex;
    sorted = { column, up: sorted.column === column ? !sorted.up : true };
    const value = (row) => {
      const cell = row.cells[column];
      return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
    };
    const rows = [...body.rows].sort((a, b) => {
      const [left, right] = [value(a), value(b)];
      if (typeof left === "number") return left - right;
      return left.localeCompare(right);
    });
    body.append(...(sorted.up ? rows : rows.reverse()));
  });
}
