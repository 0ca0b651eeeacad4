"""One image on its way to one record: found, decoded, resized, encoded, packed into a Datum."""
