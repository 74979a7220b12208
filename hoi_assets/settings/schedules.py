"""Section of what runs by itself."""

from pydantic import Field

from hoi_assets.settings.base import Section


class Schedules(Section):
    """When sensors act; schedules and sensors are switched on in Dagster's UI."""

    retrain_after_labels: int = Field(
        50,
        ge=1,
        description="New labels in verifier.labels_folder from which the sensor "
        "`retrain_on_new_labels` retrains the verifier.",
    )
